(** * Covariance, the optimal λ, nonnegativity, bounds for λ *)
From KL Require Export Means.

Section Variance.
Context {A : Type} {X : list A}.
Implicit Types (q p : law X).

(** *** The covariance is minus the Jeffreys divergence *)

Lemma J_mean q p : p ≪ q -> J q p = E[x ∼ q] ((p x / q x - 1) * ln (p x / q x)).
Proof.
  intros H. destruct (prop_sampling_identities q p) as (_ & _ & _ & I4).
  unfold J. rewrite (I4 H). unfold KL. rewrite <- E_plus. apply E_ext; intros; ring.
Qed.

Lemma J_zero q p : q ≪ p -> p ≪ q -> (J q p = 0 <-> q ≡ p).
Proof.
  intros H H'. unfold J. assert (N := KL_nonneg q p H). assert (N' := KL_nonneg p q H').
  destruct (thm_gibbs q p H) as (_ & _ & _ & Z). split.
  - intros S. apply Z. lra.
  - intros S. rewrite (same_KL q p S), (same_KL p q); [ring|]. intros x Hx; symmetry; auto.
Qed.

Theorem thm_covariance_is_minus_jeffreys q p : q ≪ p -> p ≪ q ->
  Cov[x ∼ q] (- ln (p x / q x), p x / q x - 1) = - J q p /\
  - J q p <= 0 /\
  (Cov[x ∼ q] (- ln (p x / q x), p x / q x - 1) = 0 <-> q ≡ p).
Proof.
  intros H H'.
  assert (C : Cov[x ∼ q] (- ln (p x / q x), p x / q x - 1) = - J q p).
  { rewrite Cov_E, lem_mean_of_r_minus_1. assert (Z := H'). apply P_zero_covered in Z as ->.
    rewrite (J_mean q p H'), <- E_opp.
    rewrite (E_ext q (fun x => - ln (p x / q x) * (p x / q x - 1))
      (fun x => - ((p x / q x - 1) * ln (p x / q x)))) by (intros; ring). ring. }
  assert (N := KL_nonneg q p H). assert (N' := KL_nonneg p q H').
  rewrite C. split; [easy|split]; [unfold J; lra|]. rewrite <- (J_zero q p) by trivial. lra.
Qed.

(** *** The optimal λ *)

Lemma Var_r q p : p ≪ q -> Var[x ∼ q] (p x / q x - 1) = chi2 p q.
Proof.
  intros H. unfold Var. rewrite Cov_E, lem_mean_of_r_minus_1. apply P_zero_covered in H as ->.
  unfold chi2. rewrite (E_ext q _ (fun x => (p x / q x - 1) ^ 2)) by (intros; ring). ring.
Qed.

Theorem thm_optimal_lambda_parabola q p λ : q ≪ p -> p ≪ q ->
  Var[x ∼ q] k λ (p x / q x) =
  Var[x ∼ q] k1 (p x / q x) - 2 * λ * J q p + λ ^ 2 * chi2 p q.
Proof.
  intros H H'. destruct (thm_covariance_is_minus_jeffreys q p H H') as [C _].
  unfold k, k1.
  rewrite (Var_plus_scal q (fun x => - ln (p x / q x)) (fun x => p x / q x - 1) λ), C, Var_r by trivial. ring.
Qed.

Theorem thm_optimal_lambda q p : q ≪ p -> p ≪ q -> ~ q ≡ p ->
  let V λ := Var[x ∼ q] k λ (p x / q x) in
  let V1 := Var[x ∼ q] k1 (p x / q x) in
  let V3 := Var[x ∼ q] k3 (p x / q x) in
  let J := J q p in
  let χ2 := chi2 p q in
  let λopt := J / χ2 in
  0 < χ2 /\ 0 < λopt /\
  (forall λ, V λ = V1 - 2 * λ * J + λ ^ 2 * χ2) /\
  V λopt = V1 - J ^ 2 / χ2 /\
  (forall λ, V λ - V λopt = χ2 * (λ - λopt) ^ 2) /\
  J ^ 2 <= χ2 * V1 /\
  V3 = V1 - 2 * J + χ2 /\
  (V3 < V1 <-> χ2 < 2 * J) /\
  (V3 < V1 <-> λopt > 1 / 2).
Proof.
  intros H H' N V V1 V3 J' χ2 λopt.
  assert (C : 0 < χ2).
  { destruct (chi2_nonneg q p) as [|Z]; [easy|]. symmetry in Z. now apply chi2_zero in Z. }
  assert (P : 0 < J').
  { destruct (thm_covariance_is_minus_jeffreys q p H H') as (_ & [S|S] & _); unfold J'; [lra|].
    exfalso; apply N, J_zero; trivial; lra. }
  assert (L : 0 < λopt) by (now apply Rdiv_lt_0_compat).
  assert (EJ : J' = λopt * χ2) by (unfold λopt; field; lra).
  assert (EV : forall λ, V λ = V1 - 2 * λ * J' + λ ^ 2 * χ2).
  { intros. now apply thm_optimal_lambda_parabola. }
  assert (E3 : V3 = V1 - 2 * J' + χ2).
  { replace (V1 - 2 * J' + χ2) with (V 1) by (rewrite EV; ring).
    apply Var_ext; intros; apply k3_k. }
  assert (M : V λopt = V1 - J' ^ 2 / χ2) by (rewrite EV; unfold λopt; field; lra).
  assert (B : J' ^ 2 <= χ2 * V1).
  { assert (0 <= V λopt) by apply Var_nonneg. rewrite M in H0.
    apply (Rmult_le_compat_l χ2) in H0; [|lra].
    replace (χ2 * (V1 - J' ^ 2 / χ2)) with (χ2 * V1 - J' ^ 2) in H0 by (field; lra). lra. }
  assert (I : V3 < V1 <-> χ2 < 2 * J') by lra.
  repeat (split; trivial).
  - intros λ. rewrite !EV, EJ. ring.
  - intros. apply I in H0. apply Rmult_lt_reg_r with χ2; lra.
  - intros. apply I. apply Rgt_lt, (Rmult_lt_compat_r χ2) in H0; lra.
Qed.
End Variance.

(** *** Only λ = 1 is nonnegative *)

Theorem thm_nonnegative_lambda_min : forall λ, 0 < λ ->
  k λ (1 / λ) = 1 - λ + ln λ /\ (forall r, 0 < r -> k λ (1 / λ) <= k λ r).
Proof.
  intros λ H. assert (S : k λ (1 / λ) = 1 - λ + ln λ).
  { unfold k. rewrite ln_div, ln_1 by lra. field; lra. }
  split; [easy|]. intros r Hr. rewrite S. unfold k.
  assert (N := ln_le_minus_1 (λ * r) (Rmult_lt_0_compat _ _ H Hr)). rewrite ln_mult in N by trivial. lra.
Qed.

Theorem thm_nonnegative_lambda_unbounded : forall λ, λ <= 0 -> forall B, exists r, 0 < r /\ k λ r < B.
Proof.
  intros λ H B. exists (exp (Rabs B + 1)). split; [apply exp_pos|].
  unfold k. rewrite ln_exp. assert (P := Rabs_pos B). assert (Q := Rle_abs (- B)). rewrite Rabs_Ropp in Q.
  assert (G := exp_ineq1_le (Rabs B + 1)).
  assert (λ * (exp (Rabs B + 1) - 1) <= 0); [|lra].
  rewrite <- (Rmult_0_l (exp (Rabs B + 1) - 1)). apply Rmult_le_compat_r; lra.
Qed.

Theorem thm_nonnegative_lambda : forall λ, (forall r, 0 < r -> 0 <= k λ r) <-> λ = 1.
Proof.
  intros λ; split.
  - intros H. destruct (Rle_or_lt λ 0) as [L|L].
    + destruct (thm_nonnegative_lambda_unbounded λ L 0) as (r & Hr & N). specialize (H r Hr). lra.
    + destruct (Req_dec λ 1) as [|N]; [easy|exfalso].
      destruct (thm_nonnegative_lambda_min λ L) as [S _].
      specialize (H (1 / λ) ltac:(apply Rdiv_lt_0_compat; lra)). rewrite S in H.
      assert (M := ln_lt_minus_1 λ L N). lra.
  - intros ->. intros r Hr. rewrite <- k3_k. now apply k3_nonneg.
Qed.

(** *** Bounds for λ* *)

(** The slope of the chord of ln between 1 and r. *)
Definition j (r : R) : R := if Req_EM_T r 1 then 1 else ln r / (r - 1).

Lemma j_mult r : ln r = j r * (r - 1).
Proof. unfold j. destruct Req_EM_T as [->|]; [rewrite ln_1; ring|field; lra]. Qed.

Lemma ln_tangent a y : 0 < a -> 0 < y -> ln y <= ln a + (y - a) / a.
Proof.
  intros Ha Hy. assert (N := ln_le_minus_1 (y / a) (Rdiv_lt_0_compat _ _ Hy Ha)). rewrite ln_div in N by trivial.
  replace ((y - a) / a) with (y / a - 1) by (field; lra). lra.
Qed.

(** ln is concave. *)
Lemma ln_chord x y z : 0 < x -> x <= y <= z -> (y - x) * ln z + (z - y) * ln x <= (z - x) * ln y.
Proof.
  intros Hx H. assert (T1 := ln_tangent y z ltac:(lra) ltac:(lra)).
  assert (T2 := ln_tangent y x ltac:(lra) ltac:(lra)).
  apply (Rmult_le_compat_l (y - x)) in T1; [|lra]. apply (Rmult_le_compat_l (z - y)) in T2; [|lra].
  assert ((y - x) * ((z - y) / y) + (z - y) * ((x - y) / y) = 0) by (field; lra). lra.
Qed.

Lemma j_ge_1 r : 0 < r <= 1 -> 1 <= j r.
Proof.
  intros H. unfold j. destruct Req_EM_T; [lra|]. assert (N := ln_le_minus_1 r ltac:(lra)).
  replace (ln r / (r - 1)) with (- ln r / (1 - r)) by (field; lra).
  apply Rmult_le_reg_r with (1 - r); [lra|]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra.
Qed.

Lemma j_le_1 r : 1 <= r -> j r <= 1.
Proof.
  intros H. unfold j. destruct Req_EM_T; [lra|]. assert (N := ln_le_minus_1 r ltac:(lra)).
  apply Rmult_le_reg_r with (r - 1); [lra|]. unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. lra.
Qed.

Theorem thm_lambda_bounds_j_decreasing : forall a b, 0 < a -> a <= b -> j b <= j a.
Proof.
  intros a b Ha H. destruct (Req_dec a b) as [->|N]; [lra|].
  destruct (Rle_or_lt 1 b) as [B|B]; [destruct (Rle_or_lt a 1) as [A|A]|].
  - apply Rle_trans with 1; [now apply j_le_1|apply j_ge_1; lra].
  - assert (C := ln_chord 1 a b ltac:(lra) ltac:(lra)). rewrite ln_1, (j_mult a), (j_mult b) in C.
    apply Rmult_le_reg_r with ((a - 1) * (b - 1)); [apply Rmult_lt_0_compat; lra|]. lra.
  - assert (C := ln_chord a b 1 ltac:(lra) ltac:(lra)). rewrite ln_1, (j_mult a), (j_mult b) in C.
    apply Rmult_le_reg_r with ((1 - a) * (1 - b)); [apply Rmult_lt_0_compat; lra|]. lra.
Qed.

Section Bounds.
Context {A : Type} {X : list A}.
Implicit Types (q p : law X).

(** λ* is an average of j(r) with the weights (r-1)². *)
Lemma J_average q p : p ≪ q -> J q p = E[x ∼ q] ((p x / q x - 1) ^ 2 * j (p x / q x)).
Proof.
  intros H. rewrite (J_mean q p H). apply E_ext; intros. rewrite (j_mult (p x / q x)) at 1. ring.
Qed.

Lemma J_upper q p m : q ≪ p -> p ≪ q -> 0 < m -> (forall x, x ∈ X -> 0 < q x -> m <= p x / q x) ->
  J q p <= j m * chi2 p q.
Proof.
  intros H H' Hm B. rewrite (J_average q p H'). unfold chi2. rewrite <- E_scal.
  apply E_le; intros x Hx Hq. rewrite (Rmult_comm (j m)). apply Rmult_le_compat_l; [apply pow2_ge_0|].
  apply thm_lambda_bounds_j_decreasing; auto.
Qed.

Lemma J_lower q p M : q ≪ p -> p ≪ q -> (forall x, x ∈ X -> 0 < q x -> p x / q x <= M) ->
  j M * chi2 p q <= J q p.
Proof.
  intros H H' B. rewrite (J_average q p H'). unfold chi2. rewrite <- E_scal.
  apply E_le; intros x Hx Hq. rewrite (Rmult_comm (j M)). apply Rmult_le_compat_l; [apply pow2_ge_0|].
  apply thm_lambda_bounds_j_decreasing; auto. now apply ratio_pos.
Qed.

Theorem thm_lambda_bounds q p m M : q ≪ p -> p ≪ q -> ~ q ≡ p -> 0 < m ->
  (forall x, x ∈ X -> 0 < q x -> m <= p x / q x <= M) ->
  j M <= J q p / chi2 p q <= j m.
Proof.
  intros H H' N Hm B. destruct (thm_optimal_lambda q p H H' N) as (C & _).
  assert (U := J_upper q p m H H' Hm (fun x Hx Hq => proj1 (B x Hx Hq))).
  assert (L := J_lower q p M H H' (fun x Hx Hq => proj2 (B x Hx Hq))).
  split; apply Rmult_le_reg_r with (chi2 p q); trivial; unfold Rdiv;
    rewrite ?Rmult_assoc, Rinv_l by lra; lra.
Qed.

(** If r ≤ M₀, where ln M₀ = (M₀ - 1)/2 and M₀ ≠ 1, then k₃ is no worse than k₁. *)
Theorem thm_lambda_bounds_safe q p M0 : q ≪ p -> p ≪ q -> M0 <> 1 -> ln M0 = (M0 - 1) / 2 ->
  (forall x, x ∈ X -> 0 < q x -> p x / q x <= M0) ->
  Var[x ∼ q] k3 (p x / q x) <= Var[x ∼ q] k1 (p x / q x).
Proof.
  intros H H' N R0 B. assert (L := J_lower q p M0 H H' B).
  replace (j M0) with (1 / 2) in L.
  2:{ unfold j. destruct Req_EM_T; [easy|]. rewrite R0. field; lra. }
  assert (S := thm_optimal_lambda_parabola q p 1 H H').
  rewrite (Var_ext q (fun x => k3 (p x / q x)) (fun x => k 1 (p x / q x))) by (intros; apply k3_k). lra.
Qed.
End Bounds.
