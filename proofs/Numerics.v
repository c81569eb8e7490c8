(** * k₃ as a function of x = ln r: its conditioning, and far from zero *)
From KL Require Export Divergences.
From Coquelicot Require Import Coquelicot.

(** k₃ of r = e^x. *)
Definition k3_exp (x : R) : R := exp x - 1 - x.

Lemma k3_exp_is_k3 x : k3 (exp x) = k3_exp x.
Proof. unfold k3, k3_exp. rewrite ln_exp. ring. Qed.

Lemma k3_exp_pos x : x <> 0 -> 0 < k3_exp x.
Proof. intros H. assert (K := exp_ineq1 x H). unfold k3_exp. lra. Qed.

(** (x - 1) e^x + 1 ≥ 0, since 1 - x ≤ e^{-x}. *)
Lemma slope_nonneg x : 0 <= (x - 1) * exp x + 1.
Proof.
  assert (K := exp_ineq1_le (- x)). assert (P := exp_pos x). apply (Rmult_le_compat_r (exp x)) in K; [|lra].
  rewrite <- exp_plus, Rplus_opp_l, exp_0 in K. lra.
Qed.

(** A function with a nonnegative derivative increases. *)
Lemma increasing (f f' : R -> R) a b : a <= b -> (forall c, a <= c <= b -> is_derive f c (f' c)) ->
  (forall c, a <= c <= b -> 0 <= f' c) -> f a <= f b.
Proof.
  intros [H|H] D N; [|rewrite H; lra].
  destruct (MVT_cor2 f f' a b H) as (c & S & B).
  { intros c Hc. apply is_derive_Reals, D. lra. }
  assert (0 <= f' c * (b - a)); [|lra]. apply Rmult_le_pos; [apply N; lra|lra].
Qed.

(** (x - 2) e^x + x + 2 has the sign of x. *)
Lemma two_sided x : (0 <= x -> 0 <= (x - 2) * exp x + x + 2) /\ (x <= 0 -> (x - 2) * exp x + x + 2 <= 0).
Proof.
  set (f := fun x => (x - 2) * exp x + x + 2).
  assert (D : forall c, is_derive f c ((c - 1) * exp c + 1)).
  { intros c. unfold f. auto_derive; [easy|ring]. }
  assert (Z : f 0 = 0) by (unfold f; rewrite exp_0; ring). fold (f x). split; intros H; rewrite <- Z.
  - apply (increasing f (fun c => (c - 1) * exp c + 1)); auto using slope_nonneg.
  - apply (increasing f (fun c => (c - 1) * exp c + 1)); auto using slope_nonneg.
Qed.

Lemma exp_above_square x : 0 <= x -> 0 <= 2 * exp x - 2 - 2 * x - x ^ 2.
Proof.
  intros H. set (f := fun x => 2 * exp x - 2 - 2 * x - x ^ 2).
  assert (Z : f 0 = 0) by (unfold f; rewrite exp_0; ring). fold (f x). rewrite <- Z.
  apply (increasing f (fun c => 2 * (exp c - 1 - c))); trivial.
  - intros c _. unfold f. auto_derive; [easy|ring].
  - intros c _. assert (K := exp_ineq1_le c). lra.
Qed.

(** The relative condition number of k₃ in x. *)
Definition cond (x : R) : R := Rabs (x * (exp x - 1) / k3_exp x).

Theorem thm_conditioning : forall x, (x < 0 -> 1 <= cond x <= 2) /\ (0 < x -> 2 <= cond x <= 2 + x).
Proof.
  assert (C : forall x, x <> 0 -> 0 < k3_exp x /\ cond x = x * (exp x - 1) / k3_exp x).
  { intros x H. assert (P := k3_exp_pos x H). split; [easy|]. unfold cond. apply Rabs_pos_eq.
    apply Rmult_le_pos; [|left; now apply Rinv_0_lt_compat].
    destruct (Rle_or_lt 0 x) as [S|S].
    - apply Rmult_le_pos; trivial. assert (K := exp_ineq1_le x). lra.
    - assert (exp x < 1) by (rewrite <- exp_0; now apply exp_increasing). nra. }
  intros x. split; intros H; destruct (C x ltac:(lra)) as [P ->]; split; apply Rmult_le_reg_r with (k3_exp x); trivial;
    unfold Rdiv; rewrite ?Rmult_assoc, Rinv_l, ?Rmult_1_r by lra; unfold k3_exp.
  - assert (S := slope_nonneg x). lra.
  - destruct (two_sided x) as [_ S]. specialize (S ltac:(lra)). lra.
  - destruct (two_sided x) as [S _]. specialize (S ltac:(lra)). lra.
  - assert (S := exp_above_square x ltac:(lra)). lra.
Qed.

(** For x < 0 it is at least 2 + x, so that it tends to 2 at 0. *)
Lemma cond_near_2 x : x <> 0 -> Rabs (cond x - 2) <= Rabs x.
Proof.
  intros N. destruct (thm_conditioning x) as [L R]. destruct (Rle_or_lt 0 x) as [S|S].
  - rewrite (Rabs_pos_eq x) by easy. specialize (R ltac:(lra)). rewrite Rabs_pos_eq; lra.
  - rewrite (Rabs_left x), Rabs_left1 by lra. assert (P := k3_exp_pos x N).
    assert (A : cond x * k3_exp x >= x * (exp x - 1)).
    { unfold cond. apply Rle_ge. eapply Rle_trans; [apply Rle_abs|]. right.
      rewrite <- (Rabs_pos_eq (k3_exp x)) at 2 by lra. rewrite <- Rabs_mult. f_equal. field. lra. }
    assert (B : 2 * exp x - 2 - 2 * x - x ^ 2 <= 0).
    { set (f := fun y => 2 * exp y - 2 - 2 * y - y ^ 2). assert (Z : f 0 = 0) by (unfold f; rewrite exp_0; ring).
      fold (f x). rewrite <- Z. apply (increasing f (fun y => 2 * (exp y - 1 - y))); [lra| |].
      - intros c _. unfold f. auto_derive; [easy|ring].
      - intros c _. assert (K := exp_ineq1_le c). lra. }
    apply Rmult_le_reg_r with (k3_exp x); [easy|]. unfold k3_exp in *. nra.
Qed.

Theorem thm_conditioning_limit : is_lim cond 0 2.
Proof.
  apply is_lim_spec. intros ε. exists ε. intros x B N. change (Rabs (x - 0) < ε) in B. rewrite Rminus_0_r in B.
  eapply Rle_lt_trans; [now apply cond_near_2|exact B].
Qed.

(** To first order an error d of x is one of (e^x - 1) d of k₃; a and b are the two log-probabilities. *)
Theorem thm_conditioning_error x d ε a b : x <> 0 -> Rabs d <= ε * (Rabs a + Rabs b) ->
  is_derive k3_exp x (exp x - 1) /\
  Rabs ((exp x - 1) * d) <= cond x * ε * ((Rabs a + Rabs b) / Rabs x) * k3_exp x.
Proof.
  intros N H. split; [unfold k3_exp; auto_derive; [easy|ring]|]. assert (P := k3_exp_pos x N).
  assert (X := Rabs_pos_lt x N). rewrite Rabs_mult. unfold cond, Rdiv. rewrite !Rabs_mult, Rabs_inv, (Rabs_pos_eq (k3_exp x)) by lra.
  replace (Rabs x * Rabs (exp x - 1) * / k3_exp x * ε * ((Rabs a + Rabs b) * / Rabs x) * k3_exp x) with
    (Rabs (exp x - 1) * (ε * (Rabs a + Rabs b))) by (field; lra).
  apply Rmult_le_compat_l; [apply Rabs_pos|exact H].
Qed.

(** Far from zero e^x - 1 is at most (e-1)/(e-2) times k₃, so that the error of expm1 is not amplified more. *)
Theorem thm_accurate_kernel_far : forall x, 1 <= Rabs x ->
  Rabs (exp x - 1) <= (exp 1 - 1) / (exp 1 - 2) * k3_exp x.
Proof.
  intros x H. set (e := exp 1). assert (E1 : 2 < e) by (assert (K := exp_ineq1 1 ltac:(lra)); unfold e; lra).
  assert (E2 : e <= 3) by apply exp_le_3.
  set (c := (e - 1) / (e - 2)). assert (EC : c * (e - 2) = e - 1) by (unfold c; field; lra).
  assert (C1 : 1 < c) by (apply Rmult_lt_reg_r with (e - 2); lra).
  unfold k3_exp. destruct (Rle_or_lt 0 x) as [S|S].
  - rewrite (Rabs_pos_eq x) in H by trivial.
    assert (K : e * x <= exp x).
    { assert (K := exp_ineq1_le (x - 1)). replace x with (1 + (x - 1)) at 2 by ring. rewrite exp_plus. fold e.
      apply Rmult_le_compat_l; lra. }
    rewrite Rabs_pos_eq by nra. apply Rmult_le_reg_r with (e - 2); [lra|].
    replace (c * (exp x - 1 - x) * (e - 2)) with ((e - 1) * (exp x - 1 - x)) by (rewrite <- EC; ring).
    assert ((e - 1) * x <= exp x - 1); [|lra]. lra.
  - rewrite (Rabs_left x) in H by trivial.
    assert (L : exp x < 1) by (rewrite <- exp_0; now apply exp_increasing).
    rewrite Rabs_left by lra.
    assert (T : x + 2 <= e * exp x).
    { assert (K := exp_ineq1_le (x + 1)). rewrite exp_plus in K. fold e in K. lra. }
    (* (c+1) e^x ≥ (c+1)(x+2)/e, a line that lies above c + 1 + c x for x ≤ -1 *)
    assert (G : c + 1 + c * x <= (c + 1) * exp x); [|lra].
    apply Rmult_le_reg_r with e; [lra|].
    apply Rle_trans with ((c + 1) * (x + 2)).
    + assert (Q : e <= c + 1).
      { apply Rmult_le_reg_r with (e - 2); [lra|]. replace ((c + 1) * (e - 2)) with (e - 1 + (e - 2)) by (rewrite <- EC; ring). nra. }
      assert (W : 0 <= (c * e - (c + 1)) * (- 1 - x)); [|nra].
      apply Rmult_le_pos; [nra|lra].
    + replace ((c + 1) * exp x * e) with ((c + 1) * (e * exp x)) by ring. apply Rmult_le_compat_l; lra.
Qed.
