(** * Noise in the log-probabilities, clamps, and sums that stand still *)
From Coq Require Import Lia.
From Flocq Require Import Core.
From Coquelicot Require Import Coquelicot.
From KL Require Export Means Cancellation.
Open Scope R_scope.

(** ** Noise *)

(** Twice the mean of both signs: e^δ + e^-δ - 2 ≥ δ². *)
Lemma two_signs δ : δ ^ 2 <= k3_exp δ + k3_exp (- δ).
Proof.
  assert (B : forall y, 0 <= exp y - exp_sum 3 y).
  { intros y. destruct (Rle_or_lt 0 y) as [S|S]; [now apply exp_remainder_pos|].
    destruct (exp_remainder_neg 3 (- y) ltac:(lra)) as [A _]. rewrite Ropp_involutive in A.
    replace ((-1) ^ 4) with 1 in A by ring. lra. }
  assert (S : forall y, exp_sum 3 y = 1 + y + y ^ 2 / 2 + y ^ 3 / 6).
  { intros y. simpl exp_sum. rewrite !term_S. unfold term. simpl. field. }
  assert (P := B δ). assert (N := B (- δ)). rewrite S in P, N. unfold k3_exp. nra.
Qed.

Section Noise.
Context {A N : Type} {X : list A} {Y : list N}.
Variables (q p : law X) (noise : law Y) (δ : N -> R).
Hypotheses (q_p : q ≪ p) (p_q : p ≪ q).

(** The noise is drawn independently of x; k₁ and k₃ see the log-ratio ln r + δ. *)
Theorem prop_noisy_log_probs_k1 : E[x ∼ q] E[y ∼ noise] (- (ln (p x / q x) + δ y)) = KL q p - E noise δ.
Proof.
  rewrite (E_ext q _ (fun x => - ln (p x / q x) - E noise δ)).
  - rewrite E_minus, E_const. reflexivity.
  - intros x _ _. rewrite <- (E_const noise (- ln (p x / q x))), <- E_minus. apply E_ext; intros; ring.
Qed.

Theorem prop_noisy_log_probs_k3 : E[x ∼ q] E[y ∼ noise] k3_exp (ln (p x / q x) + δ y) = KL q p + E[y ∼ noise] k3 (exp (δ y)).
Proof.
  set (e := E[y ∼ noise] exp (δ y)).
  rewrite (E_ext q _ (fun x => e * (p x / q x) + (- ln (p x / q x) - (1 + E noise δ)))).
  - rewrite E_plus, E_scal, E_minus, E_const, (proj1 (lem_mean_of_r_covered q p) p_q).
    rewrite (E_ext noise (fun y => k3 (exp (δ y))) (fun y => exp (δ y) - (1 + δ y))) by (intros; unfold k3; rewrite ln_exp; ring).
    rewrite E_minus, E_plus, E_const. fold e. unfold KL. ring.
  - intros x Hx Q. assert (P : 0 < p x).
    { destruct (mass_cases p x Hx) as [Z|P]; [|easy]. assert (q x = 0) by (apply q_p; trivial). lra. }
    assert (R : 0 < p x / q x) by now apply Rdiv_lt_0_compat.
    rewrite (E_ext noise _ (fun y => p x / q x * exp (δ y) + (- δ y + - (1 + ln (p x / q x))))).
    + rewrite E_plus, E_scal, E_plus, E_const. fold e. rewrite E_opp. ring.
    + intros y _ _. unfold k3_exp. rewrite exp_plus, exp_ln by easy. ring.
Qed.

(** If the noise is symmetric about 0, k₃ is too large by at least half its variance. *)
Theorem prop_noisy_log_probs_symmetric : (forall f, E[y ∼ noise] f (δ y) = E[y ∼ noise] f (- δ y)) ->
  Var noise δ / 2 <= E[y ∼ noise] k3 (exp (δ y)).
Proof.
  intros S. assert (Z : E noise δ = 0). { assert (H := S (fun d => d)). cbv beta in H. rewrite E_opp in H. change (E noise δ = - E noise δ) in H. lra. }
  assert (V : Var noise δ = E[y ∼ noise] δ y ^ 2).
  { unfold Var, Cov. rewrite Z. apply E_ext; intros; ring. }
  rewrite V. assert (K : forall y, k3 (exp (δ y)) = k3_exp (δ y)) by (intros; unfold k3, k3_exp; rewrite ln_exp; ring).
  assert (T : E[y ∼ noise] (k3_exp (δ y) + k3_exp (- δ y)) = 2 * (E[y ∼ noise] k3 (exp (δ y)))).
  { rewrite E_plus, <- (S k3_exp). rewrite (E_ext noise (fun y => k3 (exp (δ y))) (fun y => k3_exp (δ y))) by (intros; apply K). ring. }
  assert (B : E[y ∼ noise] δ y ^ 2 <= E[y ∼ noise] (k3_exp (δ y) + k3_exp (- δ y))) by (apply E_le; intros; apply two_signs).
  lra.
Qed.
End Noise.

(** ** Clamps *)

Section Clamps.
Context {A : Type} {X : list A}.
Variables (q p : law X) (c : R).
Hypotheses (q_p : q ≪ p) (p_q : p ≪ q).

Theorem prop_clamps_value :
  E[x ∼ q] Rmin (k3 (p x / q x)) c = KL q p - E[x ∼ q] Rmax (k3 (p x / q x) - c) 0.
Proof.
  rewrite <- (prop_mean_of_k3_unbiased q p 1 q_p p_q), <- E_minus. apply E_ext; intros x _ _. rewrite <- k3_k.
  unfold Rmin, Rmax. destruct Rle_dec, Rle_dec; lra.
Qed.

(** e^x - 1 - x falls up to 0 and rises from there, so that a clamp of x makes it smaller. *)
Lemma k3_exp_clamped x : 0 < c -> k3_exp (Rmax (- c) (Rmin x c)) <= k3_exp x.
Proof.
  intros C. assert (M : forall a b, 0 <= a <= b -> k3_exp a <= k3_exp b).
  { intros a b H. apply (increasing k3_exp (fun x => exp x - 1)); [lra| |].
    - intros y _. unfold k3_exp. auto_derive; [easy|ring].
    - intros y Hy. assert (K := exp_ineq1_le y). lra. }
  assert (N : forall a b, a <= b <= 0 -> k3_exp b <= k3_exp a).
  { intros a b H. apply Ropp_le_cancel. apply (increasing (fun x => - k3_exp x) (fun x => - (exp x - 1))); [lra| |].
    - intros y _. unfold k3_exp. auto_derive; [easy|ring].
    - intros y Hy. assert (exp y <= 1); [|lra]. rewrite <- exp_0. destruct (Rle_lt_or_eq_dec y 0 ltac:(lra)) as [L| ->]; [left; now apply exp_increasing|lra]. }
  unfold Rmax, Rmin. destruct (Rle_dec x c); destruct Rle_dec; try lra; try (apply M; lra); apply N; lra.
Qed.

Theorem prop_clamps_ratio : 0 < c -> E[x ∼ q] k3_exp (Rmax (- c) (Rmin (ln (p x / q x)) c)) <= KL q p.
Proof.
  intros C. rewrite <- (prop_mean_of_k3_unbiased q p 1 q_p p_q). apply E_le; intros x Hx Q.
  assert (P : 0 < p x).
  { destruct (mass_cases p x Hx) as [Z|P]; [|easy]. assert (q x = 0) by (apply q_p; trivial). lra. }
  rewrite <- k3_k. replace (k3 (p x / q x)) with (k3_exp (ln (p x / q x))); [now apply k3_exp_clamped|].
  unfold k3_exp, k3. rewrite exp_ln by now apply Rdiv_lt_0_compat. ring.
Qed.
End Clamps.

(** ** A sum that stops *)

Section Stagnation.
Variable p : Z.
Hypothesis P : (8 <= p)%Z.

(** 1 + 1 + … in arithmetic of p bits, added one after the other. *)
Fixpoint ones (n : nat) : R :=
  match n with
  | O => 0
  | S m => nearest p (ones m + 1)
  end.

Lemma power_of_two : IZR (2 ^ p) = bpow radix2 p.
Proof. apply (IZR_Zpower radix2 p). lia. Qed.

Lemma whole_number (n : Z) : (0 <= n <= 2 ^ p)%Z -> number p (IZR n).
Proof.
  intros H. assert (B : Prec_gt_0 p) by (unfold Prec_gt_0; lia).
  destruct (Z.eq_dec n (2 ^ p)) as [->|N].
  - rewrite power_of_two. apply generic_format_bpow. unfold FLX_exp. lia.
  - apply generic_format_FLX. exists (Float radix2 n 0); [unfold F2R; simpl; ring|]. simpl Fnum.
    rewrite Z.abs_eq by lia. change (n < 2 ^ p)%Z. lia.
Qed.

(** 2^p + 1 lies between 2^p and 2^p + 2, and the even significand is that of 2^p. *)
Lemma tie : nearest p (IZR (2 ^ p) + 1) = IZR (2 ^ p).
Proof.
  unfold nearest, round, scaled_mantissa, cexp. set (y := IZR (2 ^ p) + 1).
  assert (T := power_of_two).
  assert (Q : 1 <= bpow radix2 p) by (apply (bpow_le radix2 0 p); lia).
  assert (M : mag radix2 y = (p + 1)%Z :> Z).
  { apply mag_unique. unfold y. rewrite T, Rabs_pos_eq by lra. replace (p + 1 - 1)%Z with p by lia. split; [lra|].
    rewrite bpow_plus. change (bpow radix2 1) with 2. assert (2 <= bpow radix2 p) by (apply (bpow_le radix2 1 p); lia). 
    assert (1 < bpow radix2 p) by lra. lra. }
  rewrite M. unfold FLX_exp. replace (p + 1 - p)%Z with 1%Z by lia. change (bpow radix2 (- (1))) with (/ 2).
  assert (D : y * / 2 = IZR (2 ^ (p - 1)) + / 2).
  { unfold y. replace p with (p - 1 + 1)%Z at 1 by lia. rewrite Z.pow_add_r, mult_IZR by lia. simpl (2 ^ 1)%Z. lra. }
  assert (F : Zfloor (y * / 2) = (2 ^ (p - 1))%Z). { apply Zfloor_imp. rewrite D, plus_IZR. lra. }
  unfold Znearest. rewrite F, D. replace (IZR (2 ^ (p - 1)) + / 2 - IZR (2 ^ (p - 1))) with (/ 2) by ring.
  rewrite Rcompare_Eq by easy.
  replace (Z.even (2 ^ (p - 1))) with true.
  - simpl negb. cbv iota. unfold F2R. simpl Fnum. simpl Fexp. change (bpow radix2 1) with 2.
    replace p with (p - 1 + 1)%Z at 2 by lia. rewrite Z.pow_add_r, mult_IZR by lia. easy.
  - symmetry. replace (p - 1)%Z with (1 + (p - 2))%Z by lia. rewrite Z.pow_add_r by lia. now rewrite Z.even_mul.
Qed.

Theorem prop_stagnation n : ones n = IZR (Z.min (Z.of_nat n) (2 ^ p)).
Proof.
  assert (B : (0 < 2 ^ p)%Z) by (apply Z.pow_pos_nonneg; lia).
  induction n as [|n IH]; [simpl; f_equal; lia|]. simpl ones. rewrite IH.
  destruct (Z_lt_le_dec (Z.of_nat n) (2 ^ p)) as [L|L].
  - rewrite Z.min_l, <- plus_IZR by lia. rewrite nearest_number by (apply whole_number; lia). f_equal. lia.
  - rewrite Z.min_r, tie by lia. f_equal. lia.
Qed.
End Stagnation.
