(** * The constant M₀ = 3.51286241725…, the root other than 1 of ln M = (M - 1)/2 *)
From KL Require Export Variance Distance.
From Interval Require Import Tactic.

(** ln M - (M - 1)/2 changes sign between two decimals: the `interval` tactic. *)
Lemma M0_left : ln 3.51286241725 > (3.51286241725 - 1) / 2.
Proof. unfold Rgt. interval with (i_prec 60). Qed.
Lemma M0_right : ln 3.51286241726 < (3.51286241726 - 1) / 2.
Proof. interval with (i_prec 60). Qed.

Lemma ln_tangent_strict a y : 0 < a -> 0 < y -> y <> a -> ln y < ln a + (y - a) / a.
Proof.
  intros Ha Hy N. assert (L := ln_lt_minus_1 (y / a) (Rdiv_lt_0_compat _ _ Hy Ha)). rewrite ln_div in L by trivial.
  replace ((y - a) / a) with (y / a - 1) by (field; lra). apply Rplus_lt_reg_l with (- ln a).
  replace (- ln a + ln y) with (ln y - ln a) by ring. apply Rlt_le_trans with (y / a - 1); [|lra].
  apply L. intros Z. apply N. replace y with (y / a * a) by (field; lra). rewrite Z; ring.
Qed.

(** ln is strictly concave. *)
Lemma ln_chord_strict x y z : 0 < x -> x < y < z -> (y - x) * ln z + (z - y) * ln x < (z - x) * ln y.
Proof.
  intros Hx H. assert (T1 := ln_tangent_strict y z ltac:(lra) ltac:(lra) ltac:(lra)).
  assert (T2 := ln_tangent y x ltac:(lra) ltac:(lra)).
  apply (Rmult_lt_compat_l (y - x)) in T1; [|lra]. apply (Rmult_le_compat_l (z - y)) in T2; [|lra].
  assert ((y - x) * ((z - y) / y) + (z - y) * ((x - y) / y) = 0) by (field; lra). lra.
Qed.

(** There is exactly one such root, and it lies between the two decimals. *)
Theorem thm_lambda_bounds_M0_enclosed : forall M, 0 < M -> M <> 1 -> ln M = (M - 1) / 2 ->
  3.51286241725 < M < 3.51286241726.
Proof.
  intros M P N R0. assert (L := M0_left). assert (U := M0_right).
  destruct (Rle_or_lt M 1) as [H|H].
  { assert (K := ln_le_minus_1 M P). lra. }
  split; apply Rnot_le_lt; intros B.
  - assert (C := ln_chord 1 M 3.51286241725 ltac:(lra) ltac:(lra)). rewrite ln_1, R0 in C.
    assert ((M - 1) * (ln 3.51286241725 - (3.51286241725 - 1) / 2) <= 0) by lra.
    assert (0 < (M - 1) * (ln 3.51286241725 - (3.51286241725 - 1) / 2)); [apply Rmult_lt_0_compat|]; lra.
  - assert (C := ln_chord 1 3.51286241726 M ltac:(lra) ltac:(lra)). rewrite ln_1, R0 in C.
    assert (0 <= (M - 1) * (ln 3.51286241726 - (3.51286241726 - 1) / 2)) by lra.
    assert (0 < (M - 1) * ((3.51286241726 - 1) / 2 - ln 3.51286241726)); [apply Rmult_lt_0_compat|]; lra.
Qed.

Theorem thm_lambda_bounds_M0_exists : exists M, 0 < M /\ M <> 1 /\ ln M = (M - 1) / 2.
Proof.
  destruct (IVT (fun u => exp u - 2 * u - 1) 1.2 1.3) as (u & [H1 H2] & Z).
  - reg.
  - lra.
  - interval with (i_prec 53).
  - interval with (i_prec 53).
  - exists (2 * u + 1). repeat split; try lra.
    replace (2 * u + 1) with (exp u) at 1 by lra. rewrite ln_exp. field.
Qed.

Theorem thm_lambda_bounds_M0_unique : forall M M', 0 < M -> M <> 1 -> ln M = (M - 1) / 2 ->
  0 < M' -> M' <> 1 -> ln M' = (M' - 1) / 2 -> M = M'.
Proof.
  assert (S : forall M M', 1 < M -> M < M' -> ln M = (M - 1) / 2 -> ln M' = (M' - 1) / 2 -> False).
  { intros M M' H H' R0 R0'. assert (C := ln_chord_strict 1 M M' ltac:(lra) ltac:(lra)).
    rewrite ln_1, R0, R0' in C. lra. }
  intros M M' P N R0 P' N' R0'.
  assert (B := thm_lambda_bounds_M0_enclosed M P N R0). assert (B' := thm_lambda_bounds_M0_enclosed M' P' N' R0').
  destruct (Rtotal_order M M') as [H|[H|H]]; [exfalso; apply (S M M'); lra|easy|exfalso; apply (S M' M); lra].
Qed.

(** *** M₀ is sharp: two points suffice *)

Lemma coin_counterexample M ε (H : 0 < ε < 1) (H' : 0 < ε * M < 1) :
  1 < M -> 2 * (ε * (M - 1)) < (M - 1 - 2 * ln M) * (1 - ε * M) ->
  let q := coin ε H in let p := coin (ε * M) H' in
  2 * J q p < chi2 p q.
Proof.
  intros HM D q p. rewrite J_mean by (apply full_covered, coin_full).
  unfold chi2, E. simpl. replace (ε * M / ε) with M by (field; lra).
  set (r2 := (1 - ε * M) / (1 - ε)).
  assert (P2 : 0 < r2) by (apply Rdiv_lt_0_compat; lra).
  assert (E2 : (1 - ε) * (r2 - 1) = - (ε * (M - 1))) by (unfold r2; field; lra).
  assert (L : - ln r2 <= ε * (M - 1) / (1 - ε * M)).
  { assert (K := ln_le_minus_1 (/ r2) (Rinv_0_lt_compat _ P2)). rewrite ln_Rinv in K by trivial.
    replace (ε * (M - 1) / (1 - ε * M)) with (/ r2 - 1); [easy|]. unfold r2. field; lra. }
  assert (L2 : 2 * (ε * (M - 1) / (1 - ε * M)) < M - 1 - 2 * ln M).
  { apply Rmult_lt_reg_r with (1 - ε * M); [lra|]. eapply Rle_lt_trans; [|exact D]. right. field; lra. }
  assert (P : 0 < ε * (M - 1)) by (apply Rmult_lt_0_compat; lra).
  assert (S : 0 < ε * (M - 1) * (M - 1 - 2 * ln M + 2 * ln r2)) by (apply Rmult_lt_0_compat; lra).
  assert (Q : 0 <= (1 - ε) * (r2 - 1) ^ 2) by (apply Rmult_le_pos; [lra|apply pow2_ge_0]).
  replace ((1 - ε) * ((r2 - 1) * ln r2)) with (- (ε * (M - 1)) * ln r2) by (rewrite <- E2; ring). lra.
Qed.

(** Where r may exceed M₀, k₃ can be worse than k₁. *)
Theorem thm_lambda_bounds_sharp : forall M0, 0 < M0 -> M0 <> 1 -> ln M0 = (M0 - 1) / 2 ->
  forall M, M0 < M -> exists q p : law [true; false],
  full_support q /\ full_support p /\ (forall x, x ∈ [true; false] -> p x / q x <= M) /\
  Var[x ∼ q] k1 (p x / q x) < Var[x ∼ q] k3 (p x / q x).
Proof.
  intros M0 P N R0 M H. assert (B := thm_lambda_bounds_M0_enclosed M0 P N R0).
  assert (D : 0 < M - 1 - 2 * ln M).
  { assert (C := ln_chord_strict 1 M0 M ltac:(lra) ltac:(lra)). rewrite ln_1, R0 in C.
    assert (0 < (M0 - 1) * (M - 1 - 2 * ln M)) by lra.
    apply Rmult_lt_reg_l with (M0 - 1); lra. }
  set (δ := M - 1 - 2 * ln M) in *. set (d := 2 * (M - 1) + δ * M).
  assert (Dd : 0 < δ * M) by (apply Rmult_lt_0_compat; lra).
  set (ε := δ / d / 2).
  assert (Eε : ε * d = δ / 2) by (unfold ε; field; unfold d; lra).
  assert (Pε : 0 < ε) by (unfold ε, Rdiv; repeat apply Rmult_lt_0_compat; try apply Rinv_0_lt_compat; unfold d; lra).
  assert (EM : 0 < ε * M) by (apply Rmult_lt_0_compat; lra).
  assert (DM : δ * (ε * M) < δ * 1).
  { assert (0 < ε * (2 * (M - 1))) by (apply Rmult_lt_0_compat; lra). unfold d in Eε. lra. }
  apply Rmult_lt_reg_l in DM; [|easy].
  assert (Hε : ε < ε * M) by (rewrite <- (Rmult_1_r ε) at 1; apply Rmult_lt_compat_l; lra).
  assert (H1 : 0 < ε < 1) by lra. assert (H2 : 0 < ε * M < 1) by lra.
  exists (coin ε H1), (coin (ε * M) H2).
  assert (F1 := coin_full ε H1). assert (F2 := coin_full (ε * M) H2).
  split; [easy|split; [easy|split]].
  - intros [] _; simpl; [right; field; lra|]. apply Rle_trans with 1; [|lra].
    apply Rmult_le_reg_r with (1 - ε); [lra|]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l; lra.
  - assert (C := coin_counterexample M ε H1 H2 ltac:(lra) ltac:(fold δ; unfold d in Eε; lra)). cbv zeta in C.
    assert (S := thm_optimal_lambda_parabola _ _ 1 (full_covered (coin ε H1) _ F2) (full_covered (coin (ε * M) H2) _ F1)).
    rewrite (Var_ext _ (fun x => k 1 (coin (ε * M) H2 x / coin ε H1 x)) (fun x => k3 (coin (ε * M) H2 x / coin ε H1 x))) in S
      by (intros; now rewrite k3_k).
    lra.
Qed.
