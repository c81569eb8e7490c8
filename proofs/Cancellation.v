(** * What e^x - 1 - x loses when it is computed as it is written *)
From Coq Require Import Lia.
From Flocq Require Import Core Relative Sterbenz.
From Coquelicot Require Import Coquelicot.
From Interval Require Import Tactic.
From KL Require Export KernelSeries.
From KL Require Import Numerics.
Open Scope R_scope.

(** ** k₃ from below *)

(** k₃ = x² ∫₀¹ (1 - s) e^{sx} ds, that is x²/2 times the mean of e^{xS} for the density 2(1 - s). *)
Theorem lem_k3_integral x : is_RInt (fun s : R => x ^ 2 / 2 * (exp (x * s) * (2 * (1 - s)))) 0 1 (k3_exp x).
Proof.
  set (F := fun s : R => x * (1 - s) * exp (x * s) + exp (x * s)).
  replace (k3_exp x) with (minus (F 1) (F 0)).
  - apply (is_RInt_derive F).
    + intros s _. unfold F. auto_derive; [easy|]. field.
    + intros s _. apply (ex_derive_continuous (fun s : R => x ^ 2 / 2 * (exp (x * s) * (2 * (1 - s))))).
      auto_derive. easy.
  - unfold F, minus, plus, opp, k3_exp; simpl. rewrite Rmult_1_r, Rmult_0_r, exp_0. ring.
Qed.

Lemma below_aux y : - 2 <= y -> 0 <= exp (2 * y) - 1 - 2 * y - y ^ 2 / 2.
Proof.
  intros H. destruct (Rle_or_lt (- 1) y) as [L|L].
  - assert (Q : 0 <= exp (2 * y) - exp_sum 3 (2 * y)).
    { destruct (Rle_or_lt 0 (2 * y)) as [S|S]; [now apply exp_remainder_pos|].
      destruct (exp_remainder_neg 3 (- (2 * y)) ltac:(lra)) as [A _]. rewrite Ropp_involutive in A.
      replace ((-1) ^ 4) with 1 in A by ring. lra. }
    replace (exp_sum 3 (2 * y)) with (1 + 2 * y + y ^ 2 * (2 + 4 / 3 * y)) in Q by (simpl exp_sum; rewrite !term_S; unfold term; simpl; field).
    assert (P := pow2_ge_0 y). nra.
  - assert (P := exp_pos (2 * y)). nra.
Qed.

(** The derivative of e^{3y} - 1 - 3y - 9/2 y² e^y has the sign of y. *)
Lemma below_slope y : (0 <= y -> 0 <= 3 * exp (3 * y) - 3 - exp y * (9 * y + 9 / 2 * y ^ 2)) /\
  (y <= 0 -> 3 * exp (3 * y) - 3 - exp y * (9 * y + 9 / 2 * y ^ 2) <= 0).
Proof.
  set (g := fun y => 3 * exp (3 * y) - 3 - exp y * (9 * y + 9 / 2 * y ^ 2)).
  set (g' := fun y => 9 * exp y * (exp (2 * y) - 1 - 2 * y - y ^ 2 / 2)).
  assert (D : forall c : R, is_derive g c (g' c)).
  { intros c. unfold g, g'. auto_derive; [easy|]. replace (3 * c) with (2 * c + c) by ring. rewrite exp_plus. field. }
  assert (Z : g 0 = 0) by (unfold g; rewrite !Rmult_0_r, exp_0; field).
  assert (N : forall c, - 2 <= c -> 0 <= g' c).
  { intros c Hc. unfold g'. apply Rmult_le_pos; [assert (P := exp_pos c); lra|now apply below_aux]. }
  fold (g y). split; intros H.
  - rewrite <- Z. apply (increasing g g'); [easy|intros c _; apply D|intros c Hc; apply N; lra].
  - destruct (Rle_or_lt (- 2) y) as [L|L].
    + rewrite <- Z. apply (increasing g g'); [easy|intros c _; apply D|intros c Hc; apply N; lra].
    + unfold g. assert (A : exp (3 * y) < 1) by (rewrite <- exp_0; apply exp_increasing; lra).
      assert (0 <= exp y * (9 * y + 9 / 2 * y ^ 2)); [|lra]. apply Rmult_le_pos; [left; apply exp_pos|nra].
Qed.

Theorem lem_k3_integral_below x : x ^ 2 / 2 * exp (x / 3) <= k3_exp x.
Proof.
  set (y := x / 3). replace x with (3 * y) by (unfold y; field). unfold k3_exp.
  set (f := fun y => exp (3 * y) - 1 - 3 * y - 9 / 2 * y ^ 2 * exp y).
  assert (D : forall c : R, is_derive f c (3 * exp (3 * c) - 3 - exp c * (9 * c + 9 / 2 * c ^ 2))).
  { intros c. unfold f. auto_derive; [easy|]. field. }
  assert (Z : f 0 = 0) by (unfold f; rewrite !Rmult_0_r, exp_0; field).
  assert (G : 0 <= f y); [|unfold f in G; lra].
  destruct (Rle_or_lt 0 y) as [S|S].
  - rewrite <- Z. apply (increasing f _ 0 y S (fun c _ => D c)). intros c Hc. apply below_slope. lra.
  - rewrite <- Z. replace y with (- - y) by ring.
    replace (f 0) with (f (- 0)) by now rewrite Ropp_0.
    apply (increasing (fun z => f (- z)) (fun c => - (3 * exp (3 * - c) - 3 - exp (- c) * (9 * - c + 9 / 2 * (- c) ^ 2)))); [lra| |].
    + intros c _. eapply is_derive_eq.
      * apply (derive_comp Ropp c (- 1)); [exact (is_derive_opp (fun y => y) c 1 (is_derive_id c))|apply D].
      * ring.
    + intros c Hc. destruct (below_slope (- c)) as [_ B]. specialize (B ltac:(lra)). lra.
Qed.

(** ** Any binary arithmetic of p bits, p ≥ 8, with rounding to nearest, without underflow and overflow *)

Section Arithmetic.
Variable p : Z.
Hypothesis P : (8 <= p)%Z.

(** The numbers, rounding to the nearest of them, and the unit roundoff 2^-p. *)
Definition number (a : R) : Prop := generic_format radix2 (FLX_exp p) a.
Definition nearest (a : R) : R := round radix2 (FLX_exp p) ZnearestE a.
Definition u : R := bpow radix2 (- p).

Local Instance bits_positive : Prec_gt_0 p.
Proof. unfold Prec_gt_0. lia. Qed.

Lemma u_pos : 0 < u.
Proof. apply bpow_gt_0. Qed.

Lemma nearest_error a : Rabs (nearest a - a) <= u * Rabs a.
Proof.
  assert (H := relative_error_N_FLX radix2 p bits_positive (fun n => negb (Z.even n)) a).
  replace (/ 2 * bpow radix2 (- p + 1)) with u in H; [exact H|].
  unfold u. rewrite bpow_plus. change (bpow radix2 1) with 2. field.
Qed.

Lemma nearest_number a : number a -> nearest a = a.
Proof. apply round_generic. apply valid_rnd_N. Qed.

Lemma nearest_le a b : a <= b -> nearest a <= nearest b.
Proof. apply round_le; [apply FLX_exp_valid, bits_positive|apply valid_rnd_N]. Qed.

Lemma number_0 : number 0.
Proof. apply generic_format_0. Qed.

Lemma number_1 : number 1.
Proof. apply (generic_format_bpow radix2 (FLX_exp p) 0). unfold FLX_exp. lia. Qed.

(** If before the last rounding the error is at most c k₃, then after it at most (u + (1 + u) c) k₃. *)
Lemma after_rounding a b c : 0 <= b -> Rabs (a - b) <= c * b -> Rabs (nearest a - b) <= (u + (1 + u) * c) * b.
Proof.
  intros B H. replace (nearest a - b) with ((nearest a - a) + (a - b)) by ring.
  assert (E := nearest_error a). assert (U := u_pos).
  assert (A : Rabs a <= b + c * b).
  { replace a with (b + (a - b)) by ring. eapply Rle_trans; [apply Rabs_triang|]. rewrite (Rabs_pos_eq b) by easy. lra. }
  eapply Rle_trans; [apply Rabs_triang|]. nra.
Qed.

Lemma k3_exp_nonneg x : 0 <= k3_exp x.
Proof. unfold k3_exp. assert (K := exp_ineq1_le x). lra. Qed.

(** Part 1: the computed exponential v is between 1/2 and 2, with a relative error of at most η. *)
Theorem thm_cancellation_exp x v η : x <> 0 -> number v -> 1 / 2 <= v <= 2 -> Rabs (v - exp x) <= η * exp x ->
  Rabs (nearest (nearest (v - 1) - x) - k3_exp x) <= (u + (1 + u) * (2 * η * exp (2 * x / 3) / x ^ 2)) * k3_exp x.
Proof.
  intros N F B H.
  rewrite (nearest_number (v - 1)).
  2: { apply sterbenz; [apply FLX_exp_valid, bits_positive|apply FLX_exp_monotone|exact F|exact number_1|lra]. }
  apply after_rounding; [apply k3_exp_nonneg|].
  replace (v - 1 - x - k3_exp x) with (v - exp x) by (unfold k3_exp; ring).
  eapply Rle_trans; [exact H|]. assert (K := lem_k3_integral_below x).
  assert (S : 0 < x ^ 2) by nra.
  assert (η0 : 0 <= η).
  { apply Rmult_le_reg_r with (exp x); [apply exp_pos|]. rewrite Rmult_0_l. eapply Rle_trans; [apply Rabs_pos|exact H]. }
  replace (exp x) with (exp (2 * x / 3) * exp (x / 3)) by (rewrite <- exp_plus; f_equal; field).
  assert (Q := exp_pos (2 * x / 3)).
  replace (η * (exp (2 * x / 3) * exp (x / 3))) with (2 * η * exp (2 * x / 3) / x ^ 2 * (x ^ 2 / 2 * exp (x / 3))) by (field; lra).
  apply Rmult_le_compat_l; [|exact K]. apply Rmult_le_pos; [|left; now apply Rinv_0_lt_compat]. nra.
Qed.

(** If it is 1 the result is -x; and a correctly rounded exponential is 1 for 0 < x < ln (1 + u). *)
Theorem thm_cancellation_one x : number x -> nearest (nearest (1 - 1) - x) = - x.
Proof.
  intros F. rewrite Rminus_eq_0, (nearest_number 0) by apply number_0. rewrite Rminus_0_l. apply nearest_number.
  now apply generic_format_opp.
Qed.

Theorem thm_cancellation_rounds_to_one x : 0 < x < ln (1 + u) -> nearest (exp x) = 1.
Proof.
  intros [L H]. assert (U := u_pos). assert (A : 1 < exp x) by (assert (K := exp_ineq1 x ltac:(lra)); lra).
  assert (B : exp x < 1 + u). { rewrite <- (exp_ln (1 + u)) by lra. now apply exp_increasing. }
  assert (G : 1 <= nearest (exp x)). { rewrite <- (nearest_number 1) by apply number_1. apply nearest_le. lra. }
  destruct G as [G|G]; [exfalso|easy].
  assert (N : Rabs (nearest (exp x) - exp x) <= Rabs (1 - exp x)).
  { apply (round_N_pt radix2 (FLX_exp p) (fun n => negb (Z.even n)) (exp x)). apply number_1. }
  assert (S : 1 + 2 * u <= nearest (exp x)).
  { assert (T := succ_le_lt radix2 (FLX_exp p) 1 (nearest (exp x)) number_1).
    specialize (T (generic_format_round radix2 (FLX_exp p) ZnearestE (exp x)) G).
    rewrite succ_eq_pos in T by lra. change 1 with (bpow radix2 0) in T at 2. rewrite ulp_bpow in T.
    unfold FLX_exp in T. replace (0 + 1 - p)%Z with (1 + - p)%Z in T by lia. rewrite bpow_plus in T.
    change (bpow radix2 1) with 2 in T. exact T. }
  rewrite (Rabs_left (1 - exp x)) in N by lra. rewrite Rabs_pos_eq in N by lra. lra.
Qed.

(** Part 2: the same with expm1, computed as v. *)
Theorem thm_cancellation_expm1 x v η : x <> 0 -> Rabs (v - (exp x - 1)) <= η * Rabs (exp x - 1) ->
  Rabs (nearest (v - x) - k3_exp x) <= (u + (1 + u) * (2 * η * Rabs (exp x - 1) * exp (- x / 3) / x ^ 2)) * k3_exp x.
Proof.
  intros N H. apply after_rounding; [apply k3_exp_nonneg|].
  replace (v - x - k3_exp x) with (v - (exp x - 1)) by (unfold k3_exp; ring).
  eapply Rle_trans; [exact H|]. assert (K := lem_k3_integral_below x). set (e := Rabs (exp x - 1)) in *.
  assert (S : 0 < x ^ 2) by nra.
  assert (Q : 0 <= η * e) by (eapply Rle_trans; [apply Rabs_pos|exact H]).
  assert (I : exp (- x / 3) * exp (x / 3) = 1) by (rewrite <- exp_plus, <- exp_0; f_equal; field).
  replace (η * e) with (2 * η * e * exp (- x / 3) / x ^ 2 * (x ^ 2 / 2 * exp (x / 3))).
  2: { transitivity (η * e * (exp (- x / 3) * exp (x / 3))); [field; lra|rewrite I; ring]. }
  apply Rmult_le_compat_l; [|exact K]. apply Rmult_le_pos; [|left; now apply Rinv_0_lt_compat].
  apply Rmult_le_pos; [lra|left; apply exp_pos].
Qed.

Theorem thm_cancellation_never_negative x : number x -> 0 <= nearest (nearest (exp x - 1) - x).
Proof.
  intros F. rewrite <- (nearest_number 0) by apply number_0. apply nearest_le.
  assert (x <= nearest (exp x - 1)); [|lra]. rewrite <- (nearest_number x) at 1 by easy. apply nearest_le.
  assert (K := exp_ineq1_le x). lra.
Qed.

(** Part 2 of the accurate kernel: far from 0 it costs less than 2.4 times the error of expm1. *)
Theorem thm_accurate_kernel_far_rounded x v η : 1 <= Rabs x -> 0 <= η -> Rabs (v - (exp x - 1)) <= η * Rabs (exp x - 1) ->
  Rabs (nearest (v - x) - k3_exp x) <= (u + 2.4 * (1 + u) * η) * k3_exp x.
Proof.
  intros X E H. replace (u + 2.4 * (1 + u) * η) with (u + (1 + u) * (2.4 * η)) by ring.
  apply after_rounding; [apply k3_exp_nonneg|].
  replace (v - x - k3_exp x) with (v - (exp x - 1)) by (unfold k3_exp; ring).
  eapply Rle_trans; [exact H|]. assert (A := thm_accurate_kernel_far x X).
  assert (C : (exp 1 - 1) / (exp 1 - 2) <= 2.4) by interval with (i_prec 60).
  assert (Q := k3_exp_nonneg x). replace (2.4 * η * k3_exp x) with (η * (2.4 * k3_exp x)) by ring.
  apply Rmult_le_compat_l; [easy|]. nra.
Qed.
End Arithmetic.
