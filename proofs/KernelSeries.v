(** * The accurate kernel without rounding: its polynomial, and four terms of the series *)
From Coquelicot Require Import Coquelicot.
From Interval Require Import Tactic.
From KL Require Export Float64 KernelCode.
From KL Require Export Gradients Numerics.
Open Scope R_scope.

(** ** The exponential series with its remainder *)

Definition term (n : nat) (x : R) : R := x ^ n / INR (fact n).

Fixpoint exp_sum (n : nat) (x : R) : R :=
  match n with
  | O => 1
  | S m => exp_sum m x + term (S m) x
  end.

Lemma INR_fact_pos n : 0 < INR (fact n).
Proof. apply lt_0_INR, lt_O_fact. Qed.

Lemma INR_fact_S n : INR (fact (S n)) = INR (S n) * INR (fact n).
Proof. rewrite <- mult_INR. reflexivity. Qed.

Lemma INR_S_pos n : 0 < INR (S n).
Proof. apply lt_0_INR, Nat.lt_0_succ. Qed.

Lemma term_S n x : term (S n) x = term n x * (x / INR (S n)).
Proof.
  unfold term. rewrite INR_fact_S. assert (P := INR_fact_pos n). assert (Q := INR_S_pos n).
  rewrite <- tech_pow_Rmult. field. split; lra.
Qed.

Lemma term_nonneg n x : 0 <= x -> 0 <= term n x.
Proof. intros H. apply Rmult_le_pos; [now apply pow_le|]. left. apply Rinv_0_lt_compat, INR_fact_pos. Qed.

Lemma is_derive_term n x : is_derive (term (S n)) x (term n x).
Proof.
  unfold term. assert (P := INR_fact_pos n). assert (Q := INR_S_pos n). auto_derive; [easy|].
  change (fact n + n * fact n)%nat with (fact (S n)). rewrite INR_fact_S. simpl pred.
  change (match n with 0%nat => 1 | S _ => INR n + 1 end) with (INR (S n)). field. split; lra.
Qed.

Lemma is_derive_exp_sum n x : is_derive (exp_sum (S n)) x (exp_sum n x).
Proof.
  revert x. induction n as [|n IH]; intros x.
  - unfold exp_sum, term. auto_derive; [easy|]. simpl. field.
  - change (is_derive (fun x => exp_sum (S n) x + term (S (S n)) x) x (exp_sum n x + term (S n) x)).
    apply (is_derive_plus (exp_sum (S n)) (term (S (S n)))); [apply IH|apply is_derive_term].
Qed.

Lemma exp_sum_0 n : exp_sum n 0 = 1.
Proof. induction n as [|n IH]; [easy|]. simpl exp_sum. rewrite IH, term_S. unfold Rdiv. ring. Qed.

Lemma term_0 n : term (S n) 0 = 0.
Proof. rewrite term_S. unfold Rdiv. ring. Qed.

(** For x ≥ 0 the remainder is between 0 and the next term times e^x. *)
Lemma exp_remainder_pos n x : 0 <= x -> 0 <= exp x - exp_sum n x <= term (S n) x * exp x.
Proof.
  assert (Z : forall n, exp 0 - exp_sum n 0 = 0) by (intros; rewrite exp_0, exp_sum_0; ring).
  revert x. induction n as [|n IH]; intros x H.
  - split.
    + simpl. assert (K := exp_ineq1_le x). lra.
    + unfold term. simpl. assert (K := exp_ineq1_le (- x)). assert (P := exp_pos x).
      apply (Rmult_le_compat_l (exp x)) in K; [|lra]. rewrite <- exp_plus, Rplus_opp_r, exp_0 in K. lra.
  - split.
    + rewrite <- (Z (S n)). apply (increasing (fun x => exp x - exp_sum (S n) x) (fun x => exp x - exp_sum n x)); [exact H| |].
      * intros c _. apply derive_minus; [apply is_derive_exp|apply is_derive_exp_sum].
      * intros c Hc. apply IH. lra.
    + apply Rminus_le.
      assert (G : 0 <= term (S (S n)) x * exp x - (exp x - exp_sum (S n) x)); [|lra].
      replace 0 with (term (S (S n)) 0 * exp 0 - (exp 0 - exp_sum (S n) 0)) by (rewrite Z, term_0; ring).
      apply (increasing (fun x => term (S (S n)) x * exp x - (exp x - exp_sum (S n) x))
        (fun x => (term (S n) x * exp x + term (S (S n)) x * exp x) - (exp x - exp_sum n x))); trivial.
      * intros c _. apply (derive_minus (fun x => term (S (S n)) x * exp x) (fun x => exp x - exp_sum (S n) x)).
        -- apply derive_mult; [apply is_derive_term|apply is_derive_exp].
        -- apply derive_minus; [apply is_derive_exp|apply is_derive_exp_sum].
      * intros c Hc. destruct (IH c ltac:(lra)). assert (0 <= term (S (S n)) c * exp c); [|lra].
        apply Rmult_le_pos; [apply term_nonneg; lra|left; apply exp_pos].
Qed.

(** For x ≤ 0 it has the sign of the next term, and is no larger. *)
Lemma exp_remainder_neg n y : 0 <= y -> 0 <= (-1) ^ S n * (exp (- y) - exp_sum n (- y)) <= term (S n) y.
Proof.
  assert (Z : forall n, exp (- 0) - exp_sum n (- 0) = 0) by (intros; rewrite Ropp_0, exp_0, exp_sum_0; ring).
  assert (D : forall (n : nat) (y : R), is_derive (fun y => (-1) ^ S (S n) * (exp (- y) - exp_sum (S n) (- y))) y
    ((-1) ^ S n * (exp (- y) - exp_sum n (- y)))).
  { intros m c. assert (O : is_derive Ropp c (- 1)) by exact (is_derive_opp (fun y => y) c 1 (is_derive_id c)).
    eapply is_derive_eq.
    - apply derive_scal, (derive_minus (fun y => exp (- y)) (fun y => exp_sum (S m) (- y))).
      + apply (derive_comp Ropp c (- 1) O exp), is_derive_exp.
      + apply (derive_comp Ropp c (- 1) O (exp_sum (S m))), is_derive_exp_sum.
    - simpl. ring. }
  revert y. induction n as [|n IH]; intros y H.
  - unfold term. simpl. assert (K := exp_ineq1_le (- y)). assert (L : exp (- y) <= 1).
    { rewrite <- exp_0. destruct H as [H|<-]; [left; apply exp_increasing; lra|rewrite Ropp_0; lra]. }
    lra.
  - split.
    + replace 0 with ((-1) ^ S (S n) * (exp (- 0) - exp_sum (S n) (- 0))) by (rewrite Z; ring).
      apply (increasing (fun y => (-1) ^ S (S n) * (exp (- y) - exp_sum (S n) (- y)))
        (fun y => (-1) ^ S n * (exp (- y) - exp_sum n (- y)))); [exact H| |].
      * intros c _. apply D.
      * intros c Hc. apply IH. lra.
    + assert (G : 0 <= term (S (S n)) y - (-1) ^ S (S n) * (exp (- y) - exp_sum (S n) (- y))); [|lra].
      replace 0 with (term (S (S n)) 0 - (-1) ^ S (S n) * (exp (- 0) - exp_sum (S n) (- 0))) by (rewrite Z, term_0; ring).
      apply (increasing (fun y => term (S (S n)) y - (-1) ^ S (S n) * (exp (- y) - exp_sum (S n) (- y)))
        (fun y => term (S n) y - (-1) ^ S n * (exp (- y) - exp_sum n (- y)))); [exact H| |].
      * intros c _. apply (derive_minus (term (S (S n)))); [apply is_derive_term|apply D].
      * intros c Hc. destruct (IH c ltac:(lra)). lra.
Qed.

(** ** How far the polynomial is from t *)

(** 1/3! + x/4! + x²/5! + … + x^19/22!. *)
Definition tail (x : R) : R :=
  (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8 * (1 + x / 9 * (1 + x / 10 * (1 + x / 11 * (1 + x / 12 *
  (1 + x / 13 * (1 + x / 14 * (1 + x / 15 * (1 + x / 16 * (1 + x / 17 * (1 + x / 18 * (1 + x / 19 * (1 + x / 20 *
  (1 + x / 21 * (1 + x / 22))))))))))))))))))) / 6.

Lemma exp_sum_22 x : exp_sum 22 x = 1 + x + x ^ 2 / 2 + x ^ 3 * tail x.
Proof. simpl exp_sum. rewrite !term_S. unfold term, tail. simpl. field. Qed.

Lemma term_23 x : 0 <= x <= 1 -> term 23 x <= x ^ 3 * / IZR (10 ^ 22).
Proof.
  intros H. assert (E : term 23 x = x ^ 3 * (x ^ 20 * / 25852016738884976640000)).
  { rewrite !term_S. unfold term. simpl. field. }
  rewrite E. apply Rmult_le_compat_l; [apply pow_le; lra|].
  replace (/ IZR (10 ^ 22)) with (1 * / 10000000000000000000000) by (simpl; field).
  apply Rmult_le_compat; [apply pow_le; lra|lra| |lra].
  rewrite <- (pow1 20). apply pow_incr. lra.
Qed.

(** For 0 < |x| ≤ 1, e^x is this sum with a rest of at most 3/10^22 x³. *)
Lemma exp_rest x : x <> 0 -> Rabs x <= 1 ->
  exists θ, Rabs θ <= 3 / IZR (10 ^ 22) /\ exp x = 1 + x + x ^ 2 / 2 + x ^ 3 * (tail x + θ).
Proof.
  intros N H. assert (N3 : x ^ 3 <> 0) by now apply pow_nonzero.
  exists ((exp x - exp_sum 22 x) / x ^ 3). split.
  - unfold Rdiv at 1. rewrite Rabs_mult, Rabs_inv, <- RPow_abs.
    assert (P : 0 < Rabs x ^ 3) by (apply pow_lt, Rabs_pos_lt, N).
    apply Rmult_le_reg_r with (Rabs x ^ 3); [easy|]. rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
    destruct (Rle_or_lt 0 x) as [S|S].
    + rewrite (Rabs_pos_eq x) in * by easy. destruct (exp_remainder_pos 22 x S) as [A B].
      rewrite Rabs_pos_eq by easy. assert (T := term_23 x ltac:(lra)).
      assert (E : exp x <= 3).
      { apply Rle_trans with (exp 1); [|apply exp_le_3]. destruct H as [H| ->]; [left; now apply exp_increasing|lra]. }
      assert (0 < exp x) by apply exp_pos. assert (0 <= term 23 x) by now apply term_nonneg. nra.
    + rewrite (Rabs_left x) in * by easy. destruct (exp_remainder_neg 22 (- x) ltac:(lra)) as [A B].
      rewrite Ropp_involutive in A, B. assert (T := term_23 (- x) ltac:(lra)).
      replace ((-1) ^ 23) with (-1) in A, B by (simpl; ring).
      rewrite Rabs_left1 by lra. assert (0 <= (- x) ^ 3 * / IZR (10 ^ 22)); [|lra].
      apply Rmult_le_pos; [lra|]. left. apply Rinv_0_lt_compat. now apply IZR_lt.
  - rewrite exp_sum_22. field. easy.
Qed.

(** The polynomial with the package's coefficients. *)
Definition coth_poly (z : R) : R := coth0 + z * (coth1 + z * (coth2 + z * (coth3 + z * (coth4 + z * (coth5 + z * coth6))))).

(** What the product with the polynomial misses. *)
Definition missed (x : R) : R := (exp x - 1) * (x / 2 - (x / 2) ^ 2 * coth_poly ((x / 2) ^ 2)) - k3_exp x.

(** With e^x - 1 = x (1 + x/2 + x² y) what is missed is x³ times this. *)
Definition missed_cubed (x y : R) : R :=
  1 / 4 + (x / 2 - 1) * y - (1 + x / 2 + x ^ 2 * y) * (coth0 + (x / 2) ^ 2 * (coth1 + (x / 2) ^ 2 * (coth2 + (x / 2) ^ 2 * (coth3 +
  (x / 2) ^ 2 * (coth4 + (x / 2) ^ 2 * (coth5 + (x / 2) ^ 2 * coth6)))))) / 4.

Lemma missed_bound δ x : x <> 0 -> Rabs x <= 1 ->
  (forall θ, Rabs θ <= 3 / IZR (10 ^ 22) -> Rabs (missed_cubed x (tail x + θ)) <= δ / 4 * (1 + x / 2 + x ^ 2 * (tail x + θ))) ->
  Rabs (missed x) <= δ * ((x / 2) ^ 2 * Rabs (exp x - 1)).
Proof.
  intros N H B. destruct (exp_rest x N H) as (θ & Hθ & E). specialize (B θ Hθ). set (y := tail x + θ) in *.
  replace (missed x) with (x ^ 3 * missed_cubed x y) by (unfold missed, k3_exp, coth_poly, missed_cubed; rewrite E; field).
  replace (exp x - 1) with (x * (1 + x / 2 + x ^ 2 * y)) by (rewrite E; field).
  assert (P : 0 <= 1 + x / 2 + x ^ 2 * y).
  { assert (A : Rabs y <= 1 / 4 + 3 / IZR (10 ^ 22)).
    { unfold y. eapply Rle_trans; [apply Rabs_triang|]. apply Rplus_le_compat; [|easy]. unfold tail.
      interval with (i_prec 40). }
    assert (- 1 / 3 <= y) by (revert A; unfold Rabs; destruct Rcase_abs; simpl; lra).
    assert (x ^ 2 <= 1) by (rewrite <- (Rmult_1_r 1), <- Rsqr_pow2; apply Rsqr_le_abs_1; now rewrite Rabs_R1).
    apply Rabs_le_between in H. assert (0 <= x ^ 2) by apply pow2_ge_0. nra. }
  rewrite !Rabs_mult, (Rabs_pos_eq (1 + x / 2 + x ^ 2 * y)), <- RPow_abs by easy.
  replace (δ * ((x / 2) ^ 2 * (Rabs x * (1 + x / 2 + x ^ 2 * y)))) with (Rabs x ^ 3 * (δ / 4 * (1 + x / 2 + x ^ 2 * y))).
  - apply Rmult_le_compat_l; [apply pow_le, Rabs_pos|easy].
  - replace (Rabs x ^ 3) with (Rabs x * x ^ 2) by (rewrite <- (pow2_abs x); ring). field.
Qed.

Ltac bound_missed :=
  apply missed_bound; [lra|apply Rabs_le; lra|]; let θ := fresh in intros θ ?; apply Rabs_le;
  unfold missed_cubed, tail, coth0, coth1, coth2, coth3, coth4, coth5, coth6; split; apply Rminus_le.
Lemma missed_all x : x <> 0 -> -1 <= x <= 1 -> Rabs (missed x) <= 174 / IZR (10 ^ 18) * ((x / 2) ^ 2 * Rabs (exp x - 1)).
Proof.
  intros N H. bound_missed.
  - interval with (i_bisect x, i_taylor x, i_degree 10, i_prec 100).
  - interval with (i_bisect x, i_taylor x, i_degree 10, i_prec 100).
Qed.

(** ** The form of k₃ with t, and with the polynomial *)

Definition coth (a : R) : R := (exp a + exp (- a)) / (exp a - exp (- a)).

(** (√z coth √z - 1) / z, and its limit 1/3 at 0. *)
Definition t_coth (z : R) : R := if Req_EM_T z 0 then 1 / 3 else (sqrt z * coth (sqrt z) - 1) / z.

(** It in terms of e^x. *)
Lemma t_coth_square x : x <> 0 -> (exp x - 1) * ((x / 2) ^ 2 * t_coth ((x / 2) ^ 2)) = x / 2 * (exp x + 1) - (exp x - 1).
Proof.
  intros N. assert (S : 0 < (x / 2) ^ 2) by nra. unfold t_coth. destruct Req_EM_T as [Z|_]; [lra|].
  replace (sqrt ((x / 2) ^ 2)) with (Rabs (x / 2)) by (rewrite <- sqrt_Rsqr_abs; f_equal; unfold Rsqr; ring).
  assert (D : forall a, a <> 0 -> exp a - exp (- a) <> 0).
  { intros a A Q. assert (exp a = exp (- a)) as I%exp_inv by lra. lra. }
  assert (C : Rabs (x / 2) * coth (Rabs (x / 2)) = x / 2 * coth (x / 2)).
  { unfold Rabs. destruct Rcase_abs; trivial. unfold coth. rewrite Ropp_involutive. assert (A := D (x / 2) ltac:(lra)). field. lra. }
  rewrite C. unfold coth. assert (A := D (x / 2) ltac:(lra)). rewrite exp_Ropp in *.
  assert (Q : exp x = exp (x / 2) * exp (x / 2)) by (rewrite <- exp_plus; f_equal; field). rewrite Q.
  assert (P := exp_pos (x / 2)). revert P A. generalize (exp (x / 2)). intros b P A.
  assert (B : b * b - 1 <> 0). { intros I. apply A. apply Rmult_eq_reg_l with b; [|lra]. rewrite Rmult_minus_distr_l, Rinv_r by lra. lra. }
  field. repeat split; lra.
Qed.

(** What 0 < t and t ≤ 1/3 come down to. *)
Lemma t_coth_bounds x : 0 < x -> 0 < (x - 2) * exp x + x + 2 /\ 0 <= (x ^ 2 - 6 * x + 12) * exp x - (x ^ 2 + 6 * x + 12).
Proof.
  intros H. split.
  - set (f := fun x => (x - 2) * exp x + x + 2 - x ^ 3 / 6).
    assert (G : 0 <= f x); [|unfold f in G; assert (P := pow_lt x 3 H); lra].
    replace 0 with (f 0) by (unfold f; rewrite exp_0; field).
    apply (increasing f (fun x => (x - 1) * exp x + 1 - x ^ 2 / 2)); [lra| |].
    + intros c _. unfold f. auto_derive; [easy|]. field.
    + intros c Hc. set (g := fun x => (x - 1) * exp x + 1 - x ^ 2 / 2).
      fold (g c). replace 0 with (g 0) by (unfold g; rewrite exp_0; field).
      apply (increasing g (fun x => x * exp x - x)); [lra| |].
      * intros d _. unfold g. auto_derive; [easy|]. field.
      * intros d Hd. assert (E := exp_ineq1_le d). nra.
  - set (f := fun x => (x ^ 2 - 6 * x + 12) * exp x - (x ^ 2 + 6 * x + 12)).
    fold (f x). replace 0 with (f 0) by (unfold f; rewrite exp_0; field).
    apply (increasing f (fun x => (x ^ 2 - 4 * x + 6) * exp x - (2 * x + 6))); [lra| |].
    + intros c _. unfold f. auto_derive; [easy|]. field.
    + intros c Hc. set (g := fun x => (x ^ 2 - 4 * x + 6) * exp x - (2 * x + 6)).
      fold (g c). replace 0 with (g 0) by (unfold g; rewrite exp_0; field).
      apply (increasing g (fun x => (x ^ 2 - 2 * x + 2) * exp x - 2)); [lra| |].
      * intros d _. unfold g. auto_derive; [easy|]. field.
      * intros d Hd. set (i := fun x => (x ^ 2 - 2 * x + 2) * exp x - 2).
        fold (i d). replace 0 with (i 0) by (unfold i; rewrite exp_0; field).
        apply (increasing i (fun x => x ^ 2 * exp x)); [lra| |].
        -- intros a _. unfold i. auto_derive; [easy|]. field.
        -- intros a _. apply Rmult_le_pos; [apply pow2_ge_0|left; apply exp_pos].
Qed.

(** k₃ = (e^x - 1)(h - h² t(h²)) with h = x/2. *)
Theorem thm_accurate_kernel_form x : k3_exp x = (exp x - 1) * (x / 2 - (x / 2) ^ 2 * t_coth ((x / 2) ^ 2)).
Proof.
  destruct (Req_dec x 0) as [->|N]; [unfold k3_exp; rewrite exp_0; ring|].
  rewrite Rmult_minus_distr_l, t_coth_square by easy. unfold k3_exp. field.
Qed.

Theorem thm_accurate_kernel_t z : 0 <= z -> 0 < t_coth z <= 1 / 3.
Proof.
  intros H. destruct (Req_dec z 0) as [->|N]; [unfold t_coth; destruct Req_EM_T; lra|].
  assert (S : 0 < sqrt z) by (apply sqrt_lt_R0; lra). set (x := 2 * sqrt z).
  assert (Z : (x / 2) ^ 2 = z). { unfold x. replace (2 * sqrt z / 2) with (sqrt z) by field. rewrite <- Rsqr_pow2. now apply Rsqr_sqrt. }
  assert (X : 0 < x) by (unfold x; lra). assert (E := exp_ineq1 x ltac:(lra)).
  assert (T := t_coth_square x ltac:(lra)). rewrite Z in T. destruct (t_coth_bounds x X) as [A B].
  assert (P : 0 < (exp x - 1) * z) by (apply Rmult_lt_0_compat; lra).
  split; apply Rmult_lt_reg_l with ((exp x - 1) * z) || apply Rmult_le_reg_l with ((exp x - 1) * z); trivial.
  - rewrite Rmult_0_r, Rmult_assoc, T. lra.
  - rewrite (Rmult_assoc _ z (t_coth z)), T, <- Z. lra.
Qed.

(** With the package's polynomial in place of t the form changes by less than the unit roundoff, relative to k₃. *)
Theorem thm_accurate_kernel_polynomial x : 0 < Rabs x <= 1 ->
  Rabs ((exp x - 1) * (x / 2 - (x / 2) ^ 2 * coth_poly ((x / 2) ^ 2)) - k3_exp x) < / 2 ^ 53 * k3_exp x.
Proof.
  intros [N H]. fold (missed x).
  assert (N' : x <> 0). { intros ->. rewrite Rabs_R0 in N. lra. }
  assert (M := missed_all x N' ltac:(now apply Rabs_le_between)). change (IZR (10 ^ 18)) with 1000000000000000000 in M.
  assert (T := thm_accurate_kernel_t ((x / 2) ^ 2) (pow2_ge_0 _)). assert (K := k3_exp_pos x N').
  rewrite <- (Rabs_pos_eq (k3_exp x)) by lra. rewrite (thm_accurate_kernel_form x).
  rewrite Rabs_mult. set (e := Rabs (exp x - 1)) in *.
  assert (P : 0 < e). { apply Rabs_pos_lt. intros Q. apply N'. apply exp_inv. rewrite exp_0. lra. }
  set (a := Rabs (x / 2)). assert (A : 0 < a <= 1 / 2).
  { unfold a, Rdiv. rewrite Rabs_mult, (Rabs_pos_eq (/ 2)) by lra. lra. }
  assert (Z : (x / 2) ^ 2 = a * a) by (unfold a; rewrite <- Rabs_mult, Rabs_pos_eq by apply Rle_0_sqr; ring).
  rewrite Z in *. set (s := t_coth (a * a)) in *.
  assert (B : a * (5 / 6) <= Rabs (x / 2 - a * a * s)).
  { eapply Rle_trans; [|apply Rabs_triang_inv]. fold a. rewrite Rabs_pos_eq by nra. nra. }
  eapply Rle_lt_trans; [exact M|]. apply Rlt_le_trans with (/ 2 ^ 53 * (e * (a * (5 / 6)))).
  - replace (/ 2 ^ 53 * (e * (a * (5 / 6)))) with (a * e * (/ 2 ^ 53 * (5 / 6))) by ring.
    replace (174 / 1000000000000000000 * (a * a * e)) with (a * e * (a * (174 / 1000000000000000000))) by ring.
    apply Rmult_lt_compat_l; [now apply Rmult_lt_0_compat|]. lra.
  - apply Rmult_le_compat_l; [lra|]. apply Rmult_le_compat_l; lra.
Qed.

(** ** Four terms of the series *)
Definition four_terms (x : R) : R := x ^ 2 / 2 + x ^ 3 / 6 + x ^ 4 / 24 + x ^ 5 / 120.

Lemma exp_sum_5 x : exp_sum 5 x = 1 + x + four_terms x.
Proof. simpl exp_sum. rewrite !term_S. unfold term, four_terms. simpl. field. Qed.

Lemma four_terms_rest x : 0 <= k3_exp x - four_terms x <= x ^ 6 / 720 * Rmax 1 (exp x).
Proof.
  replace (k3_exp x - four_terms x) with (exp x - exp_sum 5 x) by (rewrite exp_sum_5; unfold k3_exp; ring).
  assert (T : forall y, term 6 y = y ^ 6 / 720) by (intros; rewrite !term_S; unfold term; simpl; field).
  assert (P : 0 <= x ^ 6 / 720) by (replace (x ^ 6) with ((x ^ 3) ^ 2) by ring; assert (Q := pow2_ge_0 (x ^ 3)); lra).
  destruct (Rle_or_lt 0 x) as [S|S].
  - destruct (exp_remainder_pos 5 x S) as [A B]. rewrite T in B. split; [easy|]. eapply Rle_trans; [exact B|].
    apply Rmult_le_compat_l; [easy|apply Rmax_r].
  - destruct (exp_remainder_neg 5 (- x) ltac:(lra)) as [A B]. rewrite Ropp_involutive, T in *.
    replace ((-1) ^ 6) with 1 in * by ring. replace ((- x) ^ 6) with (x ^ 6) in B by ring.
    split; [lra|]. assert (L := Rmax_l 1 (exp x)). nra.
Qed.

(** They are never more than k₃, and for |x| ≤ 2^-6 they are k₃ to 2^-32. *)
Theorem thm_accurate_kernel_four_terms x :
  four_terms x <= k3_exp x /\ (0 < Rabs x <= / 2 ^ 6 -> k3_exp x - four_terms x < / 2 ^ 32 * k3_exp x).
Proof.
  assert (R := four_terms_rest x). split; [lra|]. intros [N H].
  assert (B : exp x <= 1.02).
  { apply Rle_trans with (exp (/ 64)); [|interval with (i_prec 60)].
    assert (L : x <= / 64) by (assert (A := Rle_abs x); lra). destruct L as [L| ->]; [left; now apply exp_increasing|lra]. }
  assert (K : x ^ 2 * (1 / 2 - / 64 / 6) <= k3_exp x).
  { assert (Q : 0 <= exp x - exp_sum 3 x).
    { destruct (Rle_or_lt 0 x) as [S|S]; [now apply exp_remainder_pos|].
      destruct (exp_remainder_neg 3 (- x) ltac:(lra)) as [A _]. rewrite Ropp_involutive in A.
      replace ((-1) ^ 4) with 1 in A by ring. lra. }
    replace (exp_sum 3 x) with (1 + x + x ^ 2 * (1 / 2 + x / 6)) in Q by (simpl exp_sum; rewrite !term_S; unfold term; simpl; field).
    assert (L : - / 64 <= x) by (apply Rabs_le_between in H; lra). assert (P := pow2_ge_0 x). unfold k3_exp. nra. }
  assert (P : 0 < x ^ 2) by (rewrite <- pow2_abs; now apply pow_lt).
  assert (X : x ^ 6 / 720 <= x ^ 2 * (/ 16777216 / 720)).
  { replace (x ^ 6 / 720) with (x ^ 2 * (x ^ 4 / 720)) by field. apply Rmult_le_compat_l; [lra|].
    assert (x ^ 4 <= / 16777216); [|lra]. replace (x ^ 4) with (Rabs x ^ 4) by (rewrite RPow_abs, Rabs_pos_eq; [easy|];
      replace (x ^ 4) with ((x ^ 2) ^ 2) by ring; apply pow2_ge_0).
    replace (/ 16777216) with ((/ 64) ^ 4) by field. apply pow_incr. lra. }
  assert (M : Rmax 1 (exp x) <= 1.02) by (apply Rmax_lub; lra).
  assert (0 <= x ^ 6 / 720). { replace (x ^ 6) with ((x ^ 3) ^ 2) by ring. assert (Q := pow2_ge_0 (x ^ 3)). lra. }
  nra.
Qed.
