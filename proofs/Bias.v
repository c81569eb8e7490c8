(** * The bias of k₂: E k₂ - KL = -E g(ln r), where g has the sign of its argument; both signs occur *)
From KL Require Export M0.
From Coquelicot Require Import Coquelicot.
From Interval Require Import Tactic.

Lemma exp_gt_1_plus u : u <> 0 -> 1 + u < exp u.
Proof. intros N. now apply exp_ineq1. Qed.

Lemma g_mean_value a b : a < b -> exists c, g b - g a = (exp c - 1 - c) * (b - a) /\ a < c < b.
Proof.
  intros H. apply (MVT_cor2 g (fun c => exp c - 1 - c)); trivial.
  intros c _. apply is_derive_Reals. unfold g. auto_derive; [easy|simpl; field].
Qed.

Lemma g_0 : g 0 = 0.
Proof. unfold g. rewrite exp_0. field. Qed.

(** g(u) has the sign of u. *)
Theorem prop_mean_of_k2_sign_of_g : (forall u, 0 < u -> 0 < g u) /\ (forall u, u < 0 -> g u < 0).
Proof.
  split; intros u H.
  - destruct (g_mean_value 0 u H) as (c & S & B). rewrite g_0 in S.
    assert (K := exp_gt_1_plus c ltac:(lra)).
    assert (0 < (exp c - 1 - c) * (u - 0)) by (apply Rmult_lt_0_compat; lra). lra.
  - destruct (g_mean_value u 0 H) as (c & S & B). rewrite g_0 in S.
    assert (K := exp_gt_1_plus c ltac:(lra)).
    assert (0 < (exp c - 1 - c) * (0 - u)) by (apply Rmult_lt_0_compat; lra). lra.
Qed.

(** k₃ - k₂ at one sample: positive where r > 1, negative where r < 1. *)
Theorem prop_k3_minus_k2_identity : forall r, 0 < r -> k3 r - k2 r = g (ln r).
Proof. intros r H. unfold k3, k2, g. rewrite exp_ln by trivial. ring. Qed.

Theorem prop_mean_of_k2_at_least {A} {X : list A} (q p : law X) : q ≪ p ->
  E[x ∼ q] k2 (p x / q x) >= KL q p ^ 2 / 2.
Proof. intros H. rewrite (prop_mean_of_k2 q p H). assert (V := Var_nonneg q (fun x => ln (p x / q x))). lra. Qed.

Theorem prop_k3_minus_k2_sign : forall r, 0 < r -> (k2 r < k3 r <-> 0 < ln r) /\ (k3 r < k2 r <-> ln r < 0).
Proof.
  intros r H. assert (D := prop_k3_minus_k2_identity r H). destruct prop_mean_of_k2_sign_of_g as [P N].
  destruct (Rtotal_order (ln r) 0) as [L|[L|L]].
  - specialize (N _ L). lra.
  - rewrite L, g_0 in D. lra.
  - specialize (P _ L). lra.
Qed.

Lemma half : 0 < 1 / 2 < 1. Proof. lra. Qed.
Lemma tenth : 0 < 1 / 10 < 1. Proof. lra. Qed.

(** The definitions give the number one expects: (1/2) ln 5 + (1/2) ln (5/9) = 0.5108256… *)
Example KL_coin : Rabs (KL (coin _ half) (coin _ tenth) - 0.5108256) <= 0.0000001.
Proof. unfold KL, E; simpl. interval with (i_prec 53). Qed.

(** q = (1/2, 1/2), p = (1/10, 9/10): k₂ is too large on average; q and p exchanged: too small. *)
Theorem prop_mean_of_k2_both_signs :
  (let q := coin _ half in let p := coin _ tenth in E[x ∼ q] k2 (p x / q x) > KL q p) /\
  (let q := coin _ tenth in let p := coin _ half in E[x ∼ q] k2 (p x / q x) < KL q p).
Proof. unfold KL, E, k2; simpl. split; interval with (i_prec 53). Qed.

(** *** E k₂ / KL can be arbitrarily large and arbitrarily small *)

Lemma exp_neg_half L : 0 < L -> 0 < exp (- L) / 2 < 1.
Proof.
  intros H. assert (P := exp_pos (- L)). assert (exp (- L) < 1); [|lra].
  rewrite <- exp_0. apply exp_increasing; lra.
Qed.

Theorem prop_mean_of_k2_ratio_large : forall B, exists q p : law [true; false],
  full_support q /\ full_support p /\ 0 < KL q p /\ B * KL q p <= E[x ∼ q] k2 (p x / q x).
Proof.
  intros B. set (L := 2 * Rabs B + 2). assert (A0 := Rabs_pos B). assert (A1 := Rle_abs B).
  assert (HL : 0 < L) by (unfold L; lra). assert (H := exp_neg_half L HL).
  exists (coin _ half), (coin _ H).
  assert (F1 := coin_full _ half). assert (F2 := coin_full _ H).
  assert (P : 0 < KL (coin _ half) (coin _ H)).
  { destruct (thm_gibbs (coin _ half) (coin _ H)) as (_ & _ & _ & Z); [now apply full_covered|].
    destruct (KL_nonneg (coin _ half) (coin _ H)) as [|Z']; [now apply full_covered|easy|exfalso].
    symmetry in Z'. apply Z in Z'. specialize (Z' true (or_introl eq_refl)). simpl in Z'.
    assert (exp (- L) < 1); [|lra]. rewrite <- exp_0. apply exp_increasing; lra. }
  repeat (split; [easy|]).
  assert (Q := exp_pos (- L)).
  assert (X1 : exp (- L) / 2 / (1 / 2) = exp (- L)) by field.
  assert (E1 : exp (- L) < 1) by (rewrite <- exp_0; apply exp_increasing; lra).
  set (w := ln ((1 - exp (- L) / 2) / (1 - 1 / 2))).
  assert (W : 0 <= w).
  { unfold w. rewrite <- ln_1. left. apply ln_increasing; lra. }
  assert (KE : KL (coin _ half) (coin _ H) = L / 2 - w / 2).
  { unfold KL, E; simpl. rewrite X1, ln_exp. fold w. field. }
  assert (K2 : E[x ∼ coin _ half] k2 (coin _ H x / coin _ half x) = L ^ 2 / 4 + w ^ 2 / 4).
  { unfold E, k2; simpl. rewrite X1, ln_exp. fold w. field. }
  rewrite K2. apply Rle_trans with (Rabs B * (L / 2)).
  - rewrite KE. apply Rle_trans with (Rabs B * (L / 2 - w / 2)); [|apply Rmult_le_compat_l; lra].
    apply Rmult_le_compat_r; [lra|easy].
  - assert (0 <= w ^ 2) by apply pow2_ge_0. assert (0 <= L * (L - 2 * Rabs B)); [|lra].
    apply Rmult_le_pos; unfold L; lra.
Qed.

(** ln² is small against 1/c as c → 0. *)
Lemma ln_sqr_le c : 0 < c < 1 -> (ln c) ^ 2 <= 4 / c.
Proof.
  intros H. set (s := sqrt c). assert (P : 0 < s) by (apply sqrt_lt_R0; lra).
  assert (S : s * s = c) by (apply sqrt_sqrt; lra).
  assert (L : - ln c <= 2 * / s).
  { rewrite <- S, ln_mult by trivial. assert (K := ln_le_minus_1 (/ s) (Rinv_0_lt_compat _ P)).
    rewrite ln_Rinv in K by trivial. lra. }
  assert (N : 0 <= - ln c) by (assert (K := ln_le_minus_1 c ltac:(lra)); lra).
  replace (4 / c) with ((2 * / s) ^ 2) by (rewrite <- S; field; lra).
  replace ((ln c) ^ 2) with ((- ln c) ^ 2) by ring. apply pow_incr. lra.
Qed.

Lemma cube c : 0 < c < 1 / 2 -> 0 < c ^ 3 < 1.
Proof.
  intros H. split; [apply pow_lt; lra|]. assert (c * c < 1 * 1) by (apply Rmult_le_0_lt_compat; lra).
  replace (c ^ 3) with (c * c * c) by ring. replace 1 with (1 * 1) by ring. apply Rmult_le_0_lt_compat; try lra.
  apply Rmult_le_pos; lra.
Qed.

Theorem prop_mean_of_k2_ratio_small : forall η, 0 < η -> exists q p : law [true; false],
  full_support q /\ full_support p /\ 0 < KL q p /\ E[x ∼ q] k2 (p x / q x) <= η * KL q p.
Proof.
  intros η Hη. set (c := Rmin (1 / 100) (η / 20)).
  assert (Hc : 0 < c /\ c <= 1 / 100 /\ 20 * c <= η).
  { unfold c. assert (A := Rmin_l (1 / 100) (η / 20)). assert (B := Rmin_r (1 / 100) (η / 20)).
    repeat split; try lra. apply Rmin_glb_lt; lra. }
  destruct Hc as (C0 & C1 & C2). clearbody c.
  assert (H : 0 < c ^ 3 < 1) by (apply cube; lra). assert (H' : 0 < c < 1) by lra.
  exists (coin _ H), (coin _ H').
  split; [apply coin_full|split; [apply coin_full|]].
  set (a := ln c). set (b := ln ((1 - c) / (1 - c ^ 3))).
  assert (D : ln (c / c ^ 3) = - (2 * a)).
  { replace (c / c ^ 3) with (/ (c * c)) by (field; lra).
    rewrite ln_Rinv, ln_mult; try lra; [unfold a; ring|apply Rmult_lt_0_compat; lra]. }
  assert (SQ : c ^ 2 <= c / 100) by (replace (c ^ 2) with (c * c) by ring; replace (c / 100) with (c * (1 / 100)) by field; apply Rmult_le_compat_l; lra).
  assert (CU : c ^ 3 <= c / 10000).
  { replace (c ^ 3) with (c * c ^ 2) by ring. replace (c / 10000) with (c * (1 / 10000)) by field.
    apply Rmult_le_compat_l; lra. }
  assert (A2 : c ^ 3 * a ^ 2 <= 4 * c ^ 2).
  { replace (4 * c ^ 2) with (c ^ 3 * (4 / c)) by (field; lra).
    apply Rmult_le_compat_l; [lra|]. apply ln_sqr_le; lra. }
  assert (A1 : c ^ 3 * (2 * - a) <= c ^ 3 * (1 + a ^ 2)).
  { apply Rmult_le_compat_l; [lra|]. assert (K := pow2_ge_0 (a + 1)). lra. }
  assert (Y : 0 < (1 - c) / (1 - c ^ 3)) by (apply Rdiv_lt_0_compat; lra).
  assert (B1 : (1 - c ^ 3) * b <= - (c - c ^ 3)).
  { replace (- (c - c ^ 3)) with ((1 - c ^ 3) * ((1 - c) / (1 - c ^ 3) - 1)) by (field; lra).
    apply Rmult_le_compat_l; [lra|]. now apply ln_le_minus_1. }
  assert (B2 : - b <= 2 * c).
  { assert (K := ln_le_minus_1 _ (Rinv_0_lt_compat _ Y)). rewrite ln_Rinv in K by trivial. fold b in K.
    apply Rle_trans with (1 := K). apply Rmult_le_reg_r with (1 - c); [lra|].
    replace ((/ ((1 - c) / (1 - c ^ 3)) - 1) * (1 - c)) with (c - c ^ 3) by (field; lra). lra. }
  assert (B0 : b <= 0) by (apply Rmult_le_reg_l with (1 - c ^ 3); lra).
  assert (B3 : b ^ 2 <= (2 * c) ^ 2) by (replace (b ^ 2) with ((- b) ^ 2) by ring; apply pow_incr; lra).
  assert (B4 : (1 - c ^ 3) * b ^ 2 <= 1 * b ^ 2) by (apply Rmult_le_compat_r; [apply pow2_ge_0|lra]).
  assert (KE : KL (coin _ H) (coin _ H') = c ^ 3 * (2 * a) - (1 - c ^ 3) * b).
  { unfold KL, E; simpl. change (c * (c * (c * 1))) with (c ^ 3). rewrite D. fold b. ring. }
  assert (K2 : E[x ∼ coin _ H] k2 (coin _ H' x / coin _ H x) = 2 * (c ^ 3 * a ^ 2) + (1 - c ^ 3) * b ^ 2 / 2).
  { unfold E, k2; simpl. change (c * (c * (c * 1))) with (c ^ 3). rewrite D. fold b. field. }
  assert (KB : c / 2 <= KL (coin _ H) (coin _ H')) by (rewrite KE; lra).
  split; [lra|]. rewrite K2. apply Rle_trans with (20 * c * (c / 2)).
  - replace (20 * c * (c / 2)) with (10 * c ^ 2) by field. lra.
  - apply Rle_trans with (20 * c * KL (coin _ H) (coin _ H')); [apply Rmult_le_compat_l; lra|].
    apply Rmult_le_compat_r; lra.
Qed.
