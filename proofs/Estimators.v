(** * One sample: tails, units, zero variance, other samplers, clamps *)
From KL Require Export Distance Variance.

Section Tails.
Context {A : Type} {X : list A}.
Implicit Types (q p : law X).

Lemma P_pos_le_1 p q : P_pos p q <= 1.
Proof. rewrite P_pos_zero. assert (N := P_zero_nonneg p q). lra. Qed.

Lemma E_r_le_1 q p : E[x ∼ q] (p x / q x) <= 1.
Proof. rewrite lem_mean_of_r. apply P_pos_le_1. Qed.

Lemma exp_times n x : exp (INR n * x) = exp x ^ n.
Proof.
  induction n as [|n IH]; [simpl; rewrite Rmult_0_l; apply exp_0|].
  rewrite S_INR, Rmult_plus_distr_r, exp_plus, IH, Rmult_1_l. simpl. ring.
Qed.

(** u^n ≤ (n/e)^n e^u for u ≥ 0. *)
Lemma power_le_exp n u : (0 < n)%nat -> 0 <= u -> u ^ n <= (INR n / exp 1) ^ n * exp u.
Proof.
  intros Hn Hu. assert (N : 0 < INR n) by (now apply lt_0_INR). assert (P := exp_pos 1).
  replace (exp u) with (exp (u / INR n) ^ n).
  2:{ rewrite <- exp_times. f_equal. field. lra. }
  rewrite <- Rpow_mult_distr. apply pow_incr. split; [easy|].
  assert (K := exp_ineq1_le (u / INR n - 1)). replace (exp (u / INR n)) with (exp 1 * exp (u / INR n - 1)).
  2:{ rewrite <- exp_plus. f_equal. ring. }
  replace (INR n / exp 1 * (exp 1 * exp (u / INR n - 1))) with (INR n * exp (u / INR n - 1)) by (field; lra).
  apply Rle_trans with (INR n * (u / INR n)); [right; field; lra|]. apply Rmult_le_compat_l; lra.
Qed.

Theorem lem_log_ratio_tail_moments q p n : (0 < n)%nat ->
  E[x ∼ q] (Rmax (ln (p x / q x)) 0) ^ n <= (INR n / exp 1) ^ n.
Proof.
  intros Hn. set (c := (INR n / exp 1) ^ n).
  assert (C : 0 <= c).
  { apply pow_le, Rmult_le_pos; [apply pos_INR|left; apply Rinv_0_lt_compat, exp_pos]. }
  apply Rle_trans with (E[x ∼ q] (c * (p x / q x))).
  - apply E_le; intros x Hx Hq. assert (R0 : 0 <= p x / q x).
    { apply Rmult_le_pos; [now apply mass_nonneg|left; now apply Rinv_0_lt_compat]. }
    destruct (Rle_or_lt (ln (p x / q x)) 0) as [L|L].
    + rewrite Rmax_right by trivial. rewrite pow_i by trivial. now apply Rmult_le_pos.
    + rewrite Rmax_left by lra. assert (R1 : 0 < p x / q x).
      { destruct R0 as [|Z]; [easy|]. rewrite <- Z in L. unfold ln in L. destruct (Rlt_dec 0 0); lra. }
      apply Rle_trans with (1 := power_le_exp n _ Hn (Rlt_le _ _ L)). right. now rewrite exp_ln.
  - rewrite E_scal. rewrite <- (Rmult_1_r c) at 2. apply Rmult_le_compat_l; trivial. apply E_r_le_1.
Qed.

Theorem lem_log_ratio_tail q p t : q ≪ p ->
  E[x ∼ q] (if Rle_dec t (ln (p x / q x)) then 1 else 0) <= exp (- t).
Proof.
  intros H. apply Rle_trans with (E[x ∼ q] (exp (- t) * (p x / q x))).
  - apply E_le; intros x Hx Hq. assert (R0 := ratio_pos q p x H Hx Hq). assert (P := exp_pos (- t)).
    destruct Rle_dec as [L|L]; [|apply Rmult_le_pos; lra].
    rewrite <- exp_0. replace 0 with (- t + t) by ring. rewrite exp_plus. apply Rmult_le_compat_l; [lra|].
    rewrite <- (exp_ln (p x / q x)) by trivial. destruct L as [L|L]; [left; now apply exp_increasing|right; now rewrite L].
  - rewrite E_scal. rewrite <- (Rmult_1_r (exp (- t))) at 2. apply Rmult_le_compat_l; [left; apply exp_pos|apply E_r_le_1].
Qed.

Theorem prop_absolute_value q p : q ≪ p ->
  KL q p <= E[x ∼ q] Rabs (ln (p x / q x)) <= KL q p + 2 / exp 1.
Proof.
  intros H. split.
  - apply E_le; intros. rewrite <- Rabs_Ropp. apply Rle_abs.
  - assert (M := lem_log_ratio_tail_moments q p 1 ltac:(constructor)). simpl INR in M.
    apply Rle_trans with (E[x ∼ q] (- ln (p x / q x) + 2 * Rmax (ln (p x / q x)) 0 ^ 1)).
    + right. apply E_ext; intros x _ _. rewrite pow_1. unfold Rabs, Rmax.
      destruct (Rcase_abs (ln (p x / q x))); destruct (Rle_dec (ln (p x / q x)) 0); lra.
    + rewrite E_plus, E_scal. fold (KL q p). rewrite pow_1 in M. apply Rplus_le_compat_l. lra.
Qed.

(** ** Zero variance *)

Theorem prop_k1_constant q p : q ≪ p ->
  (Var[x ∼ q] k1 (p x / q x) = 0 <-> (forall x, x ∈ X -> 0 < q x -> q x = p x / P_pos p q)) /\
  ((forall x, x ∈ X -> 0 < q x -> q x = p x / P_pos p q) ->
    KL q p = - ln (P_pos p q) /\ forall x, x ∈ X -> 0 < q x -> k1 (p x / q x) = KL q p).
Proof.
  intros H. assert (Hc := P_pos_pos q p H).
  assert (B : (forall x, x ∈ X -> 0 < q x -> q x = p x / P_pos p q) ->
    KL q p = - ln (P_pos p q) /\ forall x, x ∈ X -> 0 < q x -> k1 (p x / q x) = KL q p).
  { intros S. assert (C : forall x, x ∈ X -> 0 < q x -> k1 (p x / q x) = - ln (P_pos p q)).
    { intros x Hx Hq. unfold k1. do 2 f_equal. assert (Hp := mass_pos q p x H Hx Hq). rewrite (S x Hx Hq). field. lra. }
    assert (K : KL q p = - ln (P_pos p q)).
    { transitivity (E q (fun _ => - ln (P_pos p q))); [|apply E_const]. apply E_ext. exact C. }
    split; [easy|]. intros x Hx Hq. rewrite K. auto. }
  split; [|exact B]. split.
  - intros V x Hx Hq.
    assert (C : forall y, y ∈ X -> 0 < q y -> k1 (p y / q y) = KL q p).
    { intros y Hy Py. assert (Z := E_nonneg_zero q _ (fun z _ _ => Rle_0_sqr (k1 (p z / q z) - E[x ∼ q] k1 (p x / q x))) V y Hy Py).
      apply Rsqr_0_uniq in Z. change (E[x ∼ q] k1 (p x / q x)) with (KL q p) in Z. lra. }
    assert (R0 : forall y, y ∈ X -> 0 < q y -> p y = exp (- KL q p) * q y).
    { intros y Hy Py. rewrite <- (C y Hy Py). unfold k1. rewrite Ropp_involutive, exp_ln by (now apply ratio_pos). field. lra. }
    assert (PP : P_pos p q = exp (- KL q p)).
    { rewrite <- lem_mean_of_r. transitivity (E q (fun _ => exp (- KL q p))); [|apply E_const].
      apply E_ext; intros y Hy Py. rewrite (R0 y Hy Py). field. lra. }
    rewrite (R0 x Hx Hq), PP. field. assert (P := exp_pos (- KL q p)). lra.
  - intros S. destruct (B S) as [_ C].
    assert (V : Var[x ∼ q] k1 (p x / q x) = Var q (fun _ => KL q p)) by (now apply Var_ext).
    rewrite V. unfold Var. rewrite Cov_E, !E_const. ring.
Qed.

(** ** Another logarithm *)

Theorem prop_units q p : q ≪ p -> p ≪ q ->
  E[x ∼ q] ((p x / q x - 1) - ln (p x / q x) / ln 2) = KL q p / ln 2 /\
  (forall r, 0 < r -> (r - 1) / ln 2 - ln r / ln 2 = k3 r / ln 2).
Proof.
  intros H H'. assert (L : 0 < ln 2) by (rewrite <- ln_1; apply ln_increasing; lra). split.
  - rewrite (E_ext q _ (fun x => (p x / q x - 1) + / ln 2 * - ln (p x / q x))) by (intros; field; lra).
    rewrite E_plus, E_scal, lem_mean_of_r_minus_1. apply P_zero_covered in H' as ->. fold (KL q p). field. lra.
  - intros r _. unfold k3. field. lra.
Qed.

(** The naive translation has its minimum at 1/ln 2, and it is negative. *)
Theorem prop_units_minimum :
  let f r := (r - 1) - ln r / ln 2 in
  f (1 / ln 2) = 1 / ln 2 - 1 + ln (ln 2) / ln 2 /\
  (forall r, 0 < r -> f (1 / ln 2) <= f r) /\ f (1 / ln 2) < 0.
Proof.
  intros f. assert (L : 0 < ln 2) by (rewrite <- ln_1; apply ln_increasing; lra).
  assert (V : f (1 / ln 2) = 1 / ln 2 - 1 + ln (ln 2) / ln 2).
  { unfold f. rewrite ln_div, ln_1 by lra. field. lra. }
  assert (M : forall r, 0 < r -> f (1 / ln 2) <= f r).
  { intros r Hr. rewrite V. unfold f. assert (N := ln_le_minus_1 (r * ln 2) (Rmult_lt_0_compat _ _ Hr L)).
    rewrite ln_mult in N by trivial. apply Rmult_le_reg_r with (ln 2); trivial.
    replace ((1 / ln 2 - 1 + ln (ln 2) / ln 2) * ln 2) with (1 - ln 2 + ln (ln 2)) by (field; lra).
    replace ((r - 1 - ln r / ln 2) * ln 2) with (r * ln 2 - ln 2 - ln r) by (field; lra). lra. }
  split; [easy|split; [easy|]].
  rewrite V. assert (N := ln_lt_minus_1 (ln 2) L).
  assert (U : ln 2 < 1). { assert (K := ln_lt_minus_1 2 ltac:(lra) ltac:(lra)). lra. }
  specialize (N ltac:(lra)). apply Rmult_lt_reg_r with (ln 2); trivial.
  replace ((1 / ln 2 - 1 + ln (ln 2) / ln 2) * ln 2) with (1 - ln 2 + ln (ln 2)) by (field; lra). lra.
Qed.

(** ** Bregman, halving, Hellinger *)

Theorem prop_bregman_halving : forall r, 0 < r ->
  k3 r = - ln r - - ln 1 - (-1) * (r - 1) /\ k3 r = (sqrt r - 1) ^ 2 + 2 * k3 (sqrt r).
Proof.
  intros r H. split; [unfold k3; rewrite ln_1; ring|]. assert (P : 0 < sqrt r) by (now apply sqrt_lt_R0).
  unfold k3. rewrite <- (sqrt_sqrt r) at 1 2 by lra. rewrite ln_mult by trivial. ring.
Qed.

Theorem prop_bregman_halving_hellinger q p : q ≪ p -> p ≪ q ->
  E[x ∼ q] (sqrt (p x / q x) - 1) ^ 2 = ∑ x ∈ X, (sqrt (p x) - sqrt (q x)) ^ 2 /\
  ∑ x ∈ X, (sqrt (p x) - sqrt (q x)) ^ 2 <= KL q p.
Proof.
  intros H H'. assert (S : E[x ∼ q] (sqrt (p x / q x) - 1) ^ 2 = ∑ x ∈ X, (sqrt (p x) - sqrt (q x)) ^ 2).
  { apply sum_ext; intros x Hx. destruct (mass_cases q x Hx) as [Z|Hq].
    - rewrite (H' x Hx Z), Z. ring.
    - rewrite sqrt_div_alt by trivial. assert (P : 0 < sqrt (q x)) by (now apply sqrt_lt_R0).
      rewrite <- (sqrt_sqrt (q x)) at 1 by lra. field. lra. }
  split; [easy|]. rewrite <- S, <- (prop_mean_of_k3_unbiased q p 1 H H'). apply E_le; intros x Hx Hq.
  rewrite <- k3_k. assert (R0 := ratio_pos q p x H Hx Hq). destruct (prop_bregman_halving _ R0) as [_ ->].
  assert (N := k3_nonneg _ (sqrt_lt_R0 _ R0)). lra.
Qed.

(** ** Other samplers *)

Theorem prop_which_policy (old π ref : law X) : full_support old -> full_support π -> full_support ref ->
  E[x ∼ old] - ln (ref x / π x) = KL old ref - KL old π /\
  E[x ∼ old] k3 (ref x / π x) = E[x ∼ old] - ln (ref x / π x) + E[x ∼ old] (ref x / π x) - 1 /\
  0 <= E[x ∼ old] k3 (ref x / π x) /\
  (forall f, E[x ∼ old] (π x / old x * f x) = E π f) /\
  E[x ∼ old] (π x / old x * - ln (ref x / π x)) = KL π ref /\
  E[x ∼ old] (π x / old x * k3 (ref x / π x)) = KL π ref.
Proof.
  intros Fo F Fr. assert (W : forall f, E[x ∼ old] (π x / old x * f x) = E π f).
  { intros f. apply change_of_measure. now apply full_covered. }
  split; [|split; [|split; [|split; [easy|split]]]].
  - unfold KL. rewrite <- E_minus. apply E_ext; intros x Hx _. specialize (Fo x Hx). specialize (F x Hx). specialize (Fr x Hx).
    rewrite !ln_div by trivial. ring.
  - unfold k3. rewrite !E_minus, E_const, E_opp. ring.
  - apply E_nonneg; intros x Hx _. apply k3_nonneg, Rdiv_lt_0_compat; auto.
  - exact (W (fun x => - ln (ref x / π x))).
  - rewrite (W (fun x => k3 (ref x / π x))). rewrite (E_ext π _ (fun x => k 1 (ref x / π x))) by (intros; apply k3_k).
    apply prop_mean_of_k3_unbiased; now apply full_covered.
Qed.

Theorem prop_mean_under_another_sampler (q p μ : law X) : μ ≪ q -> p ≪ q ->
  E[x ∼ μ] (p x / q x) = 1 + Cov[x ∼ q] (μ x / q x, p x / q x).
Proof.
  intros Hμ Hp. rewrite Cov_E. apply lem_mean_of_r_covered in Hp as ->.
  rewrite (change_of_measure q μ (fun x => p x / q x) Hμ). apply lem_mean_of_r_covered in Hμ as ->. ring.
Qed.

(** ** A truncated sampler: the points with [a x = true] are kept *)

Definition mass_of (q : law X) (a : A -> bool) : R := E[x ∼ q] (if a x then 1 else 0).

Theorem prop_truncated_sampling q p (a : A -> bool) (qt : law X) : 0 < mass_of q a ->
  (forall x, x ∈ X -> qt x = if a x then q x / mass_of q a else 0) -> p ≪ q -> qt ≪ p ->
  E[x ∼ qt] k1 (p x / q x) = KL qt p + ln (mass_of q a) /\
  E[x ∼ qt] k3 (p x / q x) = KL qt p + ln (mass_of q a) + mass_of p a / mass_of q a - 1 /\
  E[x ∼ qt] k1 (p x / qt x) = KL qt p /\
  E[x ∼ qt] k3 (p x / qt x) = KL qt p - (1 - mass_of p a).
Proof.
  intros HA Hqt Hpq Hqp. set (m := mass_of q a) in *.
  assert (Q : forall x, x ∈ X -> 0 < qt x -> a x = true /\ q x = m * qt x /\ 0 < q x /\ 0 < p x).
  { intros x Hx P. assert (E0 := Hqt x Hx). destruct (a x); [|lra]. assert (E1 : q x = m * qt x) by (rewrite E0; field; lra).
    repeat split; trivial; [rewrite E1; now apply Rmult_lt_0_compat|now apply (mass_pos qt p)]. }
  assert (E1 : E[x ∼ qt] k1 (p x / q x) = KL qt p + ln m).
  { unfold KL. rewrite <- (E_const qt (ln m)), <- E_plus. apply E_ext; intros x Hx P.
    destruct (Q x Hx P) as (_ & E1 & P1 & P2). unfold k1. rewrite E1. rewrite !ln_div, ln_mult by (trivial; now apply Rmult_lt_0_compat). ring. }
  assert (M : E[x ∼ qt] (p x / q x) = mass_of p a / m).
  { unfold mass_of, Rdiv. rewrite (Rmult_comm (E _ _)), <- E_scal. apply sum_ext; intros x Hx. rewrite (Hqt x Hx).
    destruct (a x); [|ring]. destruct (mass_cases q x Hx) as [Z|P]; [rewrite (Hpq x Hx Z), Z; unfold Rdiv; ring|field; lra]. }
  assert (N : E[x ∼ qt] (p x / qt x) = mass_of p a).
  { apply sum_ext; intros x Hx. assert (E0 := Hqt x Hx). destruct (a x); [|rewrite E0; ring].
    destruct (mass_cases q x Hx) as [Z|P]; [rewrite (Hpq x Hx Z), E0, Z; unfold Rdiv; ring|].
    assert (0 < qt x) by (rewrite E0; now apply Rdiv_lt_0_compat). field. lra. }
  split; [easy|split; [|split; [easy|]]]; unfold k3.
  - rewrite E_minus, E_minus, E_const, M. unfold k1 in E1. rewrite E_opp in E1. lra.
  - rewrite E_minus, E_minus, E_const, N. unfold KL. rewrite E_opp. ring.
Qed.

(** Both truncated, p to a larger set. *)
Theorem prop_truncated_sampling_both p (a : A -> bool) (qt pt : law X) : 0 < mass_of p a -> qt ≪ p ->
  (forall x, x ∈ X -> pt x = if a x then p x / mass_of p a else 0) ->
  (forall x, x ∈ X -> 0 < qt x -> a x = true) -> KL qt pt = KL qt p + ln (mass_of p a).
Proof.
  intros HA H Hpt Ha. unfold KL. rewrite <- (E_const qt (ln (mass_of p a))), <- E_plus. apply E_ext; intros x Hx P.
  assert (Pp := mass_pos qt p x H Hx P). rewrite (Hpt x Hx), (Ha x Hx P).
  rewrite !ln_div by (trivial; now apply Rdiv_lt_0_compat). ring.
Qed.

(** ** A lower bound without assumptions (Markov), for any nonnegative unbiased estimate *)

Theorem prop_lower_bound q (estimate : A -> R) δ : 0 < δ < 1 -> (forall x, x ∈ X -> 0 <= estimate x) -> 0 < E q estimate ->
  E[x ∼ q] (if Rle_dec (δ * estimate x) (E q estimate) then 1 else 0) >= 1 - δ.
Proof.
  intros Hδ N P. set (K := E q estimate) in *.
  cut (E[x ∼ q] (1 - (if Rle_dec (δ * estimate x) K then 1 else 0)) <= δ); [rewrite E_minus, E_const; lra|].
  apply Rle_trans with (E[x ∼ q] (δ / K * estimate x)).
  - apply E_le; intros x Hx _. specialize (N x Hx). assert (D : 0 < δ / K) by (apply Rdiv_lt_0_compat; lra).
    destruct Rle_dec as [L|L]; [rewrite Rminus_diag_eq by easy; apply Rmult_le_pos; lra|].
    apply Rmult_le_reg_r with K; trivial. replace (δ / K * estimate x * K) with (δ * estimate x) by (field; lra). lra.
  - rewrite (E_scal q (δ / K) estimate). fold K. right. field. lra.
Qed.
End Tails.
