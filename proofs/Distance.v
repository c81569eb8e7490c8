(** * Total variation, Pinsker, Bretagnolle and Huber, tests *)
From KL Require Export Structure.
From Coquelicot Require Import Coquelicot.

Definition TV {A} {X : list A} (p q : law X) : R := (∑ x ∈ X, Rabs (p x - q x)) / 2.

(** ** KL of measures that need not be normalised: the integrand at a point with the masses a (of q) and b (of p) *)

Definition kl_term (a b : R) : R := a * ln (a / b) - a + b.

Theorem prop_generalised_kl_nonneg : forall a b, 0 <= a -> 0 <= b -> (b = 0 -> a = 0) -> 0 <= kl_term a b.
Proof.
  intros a b Ha Hb H. assert (L := log_sum_term a b 1 Ha Hb H Rlt_0_1). rewrite ln_1 in L. unfold kl_term. lra.
Qed.

Theorem prop_generalised_kl_k3 : forall a b, 0 < a -> 0 < b -> kl_term a b = a * k3 (b / a).
Proof. intros a b Ha Hb. unfold kl_term, k3. rewrite !ln_div by trivial. field; lra. Qed.

Theorem prop_generalised_kl_off : forall b, kl_term 0 b = b.
Proof. intros. unfold kl_term. ring. Qed.

Theorem prop_generalised_kl {A} {X : list A} (q p : law X) : q ≪ p -> ∑ x ∈ X, kl_term (q x) (p x) = KL q p.
Proof.
  intros H. rewrite (KL_log_sum q p H). unfold kl_term.
  rewrite (sum_ext X _ (fun x => q x * ln (q x / p x) + (p x + -1 * q x))) by (intros; ring).
  rewrite !sum_plus, sum_scal. rewrite (mass_one q), (mass_one p). ring.
Qed.

(** ** Cauchy–Schwarz for sums *)

Lemma am_gm x a b : 0 <= a -> 0 <= b -> x ^ 2 <= a * b -> 2 * x <= a + b.
Proof.
  intros Ha Hb H. destruct (Rle_or_lt x 0) as [N|N]; [lra|].
  apply Rnot_lt_le. intros L. assert (0 < (2 * x - (a + b)) * (2 * x + (a + b))); [apply Rmult_lt_0_compat; lra|].
  assert (S := pow2_ge_0 (a - b)). lra.
Qed.

Lemma cauchy_schwarz {A} (X : list A) (f w d : A -> R) :
  (forall x, x ∈ X -> 0 <= w x) -> (forall x, x ∈ X -> 0 <= d x) ->
  (forall x, x ∈ X -> f x ^ 2 <= w x * d x) -> sum X f ^ 2 <= sum X w * sum X d.
Proof.
  induction X as [|a X IH]; intros Hw Hd Hf; cbn [sum]; [lra|].
  assert (I := IH ltac:(intros; apply Hw; now right) ltac:(intros; apply Hd; now right)
    ltac:(intros; apply Hf; now right)). assert (F := Hf a (or_introl eq_refl)).
  assert (Wa := Hw a (or_introl eq_refl)). assert (Da := Hd a (or_introl eq_refl)).
  assert (W : 0 <= sum X w) by (apply sum_nonneg; intros; apply Hw; now right).
  assert (D : 0 <= sum X d) by (apply sum_nonneg; intros; apply Hd; now right).
  assert (M : 2 * (f a * sum X f) <= w a * sum X d + sum X w * d a).
  { apply am_gm; try (now apply Rmult_le_pos).
    replace ((f a * sum X f) ^ 2) with (f a ^ 2 * sum X f ^ 2) by ring.
    replace (w a * sum X d * (sum X w * d a)) with (w a * d a * (sum X w * sum X d)) by ring.
    apply Rmult_le_compat; trivial; apply pow2_ge_0. }
  lra.
Qed.

(** ** Pinsker *)

(** k₃(r) ≥ 3 (r-1)² / (2 (1 + 2r)): the difference has the derivative (r-1)³ / (r (1+2r)²). *)
Definition pinsker_gap (r : R) : R := k3 r - 3 * (r - 1) ^ 2 / (2 * (1 + 2 * r)).

Lemma is_derive_pinsker_gap r : 0 < r -> is_derive pinsker_gap r ((r - 1) ^ 3 / (r * (1 + 2 * r) ^ 2)).
Proof.
  intros H. unfold pinsker_gap, k3. auto_derive; [repeat split; lra|]. field. repeat split; lra.
Qed.

Lemma pinsker_gap_nonneg r : 0 < r -> 0 <= pinsker_gap r.
Proof.
  intros H. assert (Z : pinsker_gap 1 = 0) by (unfold pinsker_gap, k3; rewrite ln_1; field).
  assert (M : forall a b, 0 < a -> a < b -> exists c, pinsker_gap b - pinsker_gap a =
    (c - 1) ^ 3 / (c * (1 + 2 * c) ^ 2) * (b - a) /\ a < c < b).
  { intros a b Ha Hab. apply (MVT_cor2 pinsker_gap (fun c => (c - 1) ^ 3 / (c * (1 + 2 * c) ^ 2))); trivial.
    intros c Hc. apply is_derive_Reals, is_derive_pinsker_gap. lra. }
  assert (P : forall c, 0 < c -> 0 < / (c * (1 + 2 * c) ^ 2)).
  { intros c Hc. apply Rinv_0_lt_compat, Rmult_lt_0_compat; [easy|apply pow_lt; lra]. }
  destruct (Rtotal_order r 1) as [L|[->|L]]; [|lra|].
  - destruct (M r 1 H L) as (c & S & B). rewrite Z in S. assert (Q := P c ltac:(lra)).
    assert (0 <= (1 - c) ^ 3 * / (c * (1 + 2 * c) ^ 2) * (1 - r)).
    { repeat apply Rmult_le_pos; try lra. }
    unfold Rdiv in S. lra.
  - destruct (M 1 r ltac:(lra) L) as (c & S & B). rewrite Z in S. assert (Q := P c ltac:(lra)).
    assert (0 <= (c - 1) ^ 3 * / (c * (1 + 2 * c) ^ 2) * (r - 1)).
    { repeat apply Rmult_le_pos; try lra. }
    unfold Rdiv in S. lra.
Qed.

Lemma pinsker_term a b : 0 <= a -> 0 <= b -> (b = 0 -> a = 0) ->
  Rabs (b - a) ^ 2 <= 2 / 3 * (a + 2 * b) * kl_term a b.
Proof.
  intros Ha [Hb|Zb] H; rewrite pow2_abs.
  2:{ rewrite H by auto. rewrite <- Zb, prop_generalised_kl_off. lra. }
  destruct Ha as [Ha| <-].
  - rewrite prop_generalised_kl_k3 by trivial. assert (R0 : 0 < b / a) by (now apply Rdiv_lt_0_compat).
    assert (G := pinsker_gap_nonneg (b / a) R0). unfold pinsker_gap in G.
    assert (D : 3 * (b / a - 1) ^ 2 / (2 * (1 + 2 * (b / a))) = 3 / 2 * (b - a) ^ 2 / (a * (a + 2 * b)))
      by (field; repeat split; lra).
    rewrite D in G. assert (P : 0 < a * (a + 2 * b)) by (apply Rmult_lt_0_compat; lra).
    replace ((b - a) ^ 2) with (2 / 3 * (a * (a + 2 * b)) * (3 / 2 * (b - a) ^ 2 / (a * (a + 2 * b)))) by (field; lra).
    replace (2 / 3 * (a + 2 * b) * (a * k3 (b / a))) with (2 / 3 * (a * (a + 2 * b)) * k3 (b / a)) by ring.
    apply Rmult_le_compat_l; lra.
  - rewrite prop_generalised_kl_off. nra.
Qed.

Section Distances.
Context {A : Type} {X : list A}.
Implicit Types (q p : law X).

Lemma TV_nonneg p q : 0 <= TV p q.
Proof.
  unfold TV. assert (0 <= ∑ x ∈ X, Rabs (p x - q x)); [|lra]. apply sum_nonneg; intros; apply Rabs_pos.
Qed.

Lemma TV_sym p q : TV p q = TV q p.
Proof. unfold TV. f_equal. apply sum_ext; intros. apply Rabs_minus_sym. Qed.

Lemma pinsker_squared q p : q ≪ p -> 2 * TV p q ^ 2 <= KL q p.
Proof.
  intros H. rewrite <- (prop_generalised_kl q p H).
  assert (C := cauchy_schwarz X (fun x => Rabs (p x - q x)) (fun x => 2 / 3 * (q x + 2 * p x))
    (fun x => kl_term (q x) (p x))).
  assert (W : ∑ x ∈ X, 2 / 3 * (q x + 2 * p x) = 2).
  { rewrite sum_scal, sum_plus, sum_scal. rewrite (mass_one q), (mass_one p). field. }
  change (∑ x ∈ X, 2 / 3 * (q x + 2 * p x)) with (sum X (fun x => 2 / 3 * (q x + 2 * p x))) in W. rewrite W in C.
  assert (T : sum X (fun x => Rabs (p x - q x)) ^ 2 = 4 * TV p q ^ 2) by (unfold TV; field).
  rewrite T in C. cut (4 * TV p q ^ 2 <= 2 * (∑ x ∈ X, kl_term (q x) (p x))); [lra|]. apply C.
  - intros x Hx. assert (N1 := mass_nonneg q x Hx). assert (N2 := mass_nonneg p x Hx). lra.
  - intros x Hx. apply prop_generalised_kl_nonneg; auto using mass_nonneg.
  - intros x Hx. apply pinsker_term; auto using mass_nonneg.
Qed.

Theorem thm_pinsker q p : q ≪ p -> TV p q <= sqrt (KL q p / 2).
Proof.
  intros H. assert (S := pinsker_squared q p H). rewrite <- (sqrt_pow2 (TV p q)) by apply TV_nonneg.
  apply sqrt_le_1_alt. lra.
Qed.

(** ** Bretagnolle and Huber *)

(** The Bhattacharyya coefficient. *)
Definition BC p q : R := ∑ x ∈ X, sqrt (q x) * sqrt (p x).

Lemma BC_nonneg p q : 0 <= BC p q.
Proof. apply sum_nonneg; intros. apply Rmult_le_pos; apply sqrt_pos. Qed.

Lemma TV_BC p q : TV p q ^ 2 <= 1 - BC p q ^ 2.
Proof.
  assert (C := cauchy_schwarz X (fun x => Rabs (p x - q x)) (fun x => (sqrt (p x) - sqrt (q x)) ^ 2)
    (fun x => (sqrt (p x) + sqrt (q x)) ^ 2)).
  assert (SQ : forall (a : law X) x, x ∈ X -> sqrt (a x) * sqrt (a x) = a x).
  { intros; apply sqrt_sqrt; now apply mass_nonneg. }
  assert (E1 : sum X (fun x => (sqrt (p x) - sqrt (q x)) ^ 2) = 2 - 2 * BC p q).
  { rewrite (sum_ext X _ (fun x => p x + (q x + -2 * (sqrt (q x) * sqrt (p x))))).
    - rewrite !sum_plus, sum_scal. rewrite (mass_one q), (mass_one p). unfold BC. ring.
    - intros x Hx. rewrite <- (SQ p x Hx) at 2. rewrite <- (SQ q x Hx) at 2. ring. }
  assert (E2 : sum X (fun x => (sqrt (p x) + sqrt (q x)) ^ 2) = 2 + 2 * BC p q).
  { rewrite (sum_ext X _ (fun x => p x + (q x + 2 * (sqrt (q x) * sqrt (p x))))).
    - rewrite !sum_plus, sum_scal. rewrite (mass_one q), (mass_one p). unfold BC. ring.
    - intros x Hx. rewrite <- (SQ p x Hx) at 2. rewrite <- (SQ q x Hx) at 2. ring. }
  rewrite E1, E2 in C. unfold TV.
  cut (sum X (fun x => Rabs (p x - q x)) ^ 2 <= (2 - 2 * BC p q) * (2 + 2 * BC p q)).
  { change (∑ x ∈ X, Rabs (p x - q x)) with (sum X (fun x => Rabs (p x - q x))). intros D. lra. }
  apply C; intros x Hx; try apply pow2_ge_0. rewrite pow2_abs. right.
  rewrite <- (SQ p x Hx) at 1. rewrite <- (SQ q x Hx) at 1. ring.
Qed.

(** Jensen: the mean of √r is at least exp(-KL/2). *)
Lemma BC_KL q p : q ≪ p -> exp (- KL q p / 2) <= BC p q.
Proof.
  intros H. set (c := exp (- KL q p / 2)). assert (P : 0 < c) by apply exp_pos.
  apply Rle_trans with (E[x ∼ q] (c + (c / 2 * ln (p x / q x) + c * KL q p / 2))).
  - right. rewrite !E_plus, E_scal, !E_const. assert (K : E[x ∼ q] ln (p x / q x) = - KL q p).
    { unfold KL. rewrite E_opp. ring. }
    rewrite K. field.
  - apply Rle_trans with (E[x ∼ q] sqrt (p x / q x)).
    + apply E_le; intros x Hx Hq. assert (R0 := ratio_pos q p x H Hx Hq).
      set (y := sqrt (p x / q x)). assert (Y : 0 < y) by (now apply sqrt_lt_R0).
      assert (L : ln (p x / q x) = 2 * ln y).
      { unfold y. rewrite <- (sqrt_sqrt (p x / q x)) at 1 by lra. rewrite ln_mult by trivial. ring. }
      rewrite L. assert (N := ln_le_minus_1 (y / c) (Rdiv_lt_0_compat _ _ Y P)). rewrite ln_div in N by trivial.
      replace (ln c) with (- KL q p / 2) in N by (unfold c; now rewrite ln_exp).
      apply (Rmult_le_compat_l c) in N; [|lra]. replace (c * (y / c - 1)) with (y - c) in N by (field; lra). lra.
    + right. apply sum_ext; intros x Hx. destruct (mass_cases q x Hx) as [Z|Hq].
      { rewrite Z, sqrt_0. ring. }
      rewrite sqrt_div_alt by trivial. rewrite <- (sqrt_sqrt (q x)) at 1 by lra.
      field. assert (0 < sqrt (q x)) by (now apply sqrt_lt_R0). lra.
Qed.

Theorem thm_bretagnolle_huber q p : q ≪ p ->
  TV p q <= sqrt (1 - exp (- KL q p)) /\ 1 - TV p q >= / 2 * exp (- KL q p).
Proof.
  intros H. assert (B := BC_KL q p H). assert (T := TV_BC p q). assert (N := TV_nonneg p q).
  assert (K := KL_nonneg q p H).
  assert (S : exp (- KL q p) = exp (- KL q p / 2) ^ 2).
  { simpl. rewrite Rmult_1_r, <- exp_plus. f_equal. field. }
  assert (P := exp_pos (- KL q p / 2)).
  assert (Q : exp (- KL q p / 2) ^ 2 <= BC p q ^ 2) by (apply pow_incr; lra).
  assert (T2 : TV p q ^ 2 <= 1 - exp (- KL q p)) by lra.
  assert (P' := exp_pos (- KL q p)).
  split.
  - rewrite <- (sqrt_pow2 (TV p q)) by trivial. now apply sqrt_le_1_alt.
  - apply Rle_ge, Rnot_lt_le. intros L.
    assert (1 - / 2 * exp (- KL q p) < TV p q) by lra.
    assert (E0 : exp (- KL q p) <= 1).
    { rewrite <- exp_0. destruct K as [K|K]; [left; apply exp_increasing; lra|rewrite <- K; right; f_equal; ring]. }
    assert ((1 - / 2 * exp (- KL q p)) ^ 2 < TV p q ^ 2); [|nra].
    assert (0 < (TV p q - (1 - / 2 * exp (- KL q p))) * (TV p q + (1 - / 2 * exp (- KL q p)))); [|lra].
    apply Rmult_lt_0_compat; lra.
Qed.

(** ** Tests. φ x is the probability of saying "p" when x is seen. *)

Theorem prop_testing_bound q p (φ : A -> R) : (forall x, x ∈ X -> 0 <= φ x <= 1) ->
  E q φ + E[x ∼ p] (1 - φ x) >= 1 - TV p q.
Proof.
  intros H. assert (S : E q φ + E[x ∼ p] (1 - φ x) = 1 - ∑ x ∈ X, (p x - q x) * (φ x - 1 / 2)).
  { rewrite E_minus, E_const. unfold E.
    rewrite (sum_ext X (fun x => (p x - q x) * (φ x - 1 / 2))
      (fun x => p x * φ x + (-1 * (q x * φ x) + (-1 / 2 * p x + 1 / 2 * q x)))) by (intros; field).
    rewrite !sum_plus, !sum_scal. rewrite (mass_one q), (mass_one p). field. }
  rewrite S. unfold TV. apply Rle_ge.
  assert (∑ x ∈ X, (p x - q x) * (φ x - 1 / 2) <= ∑ x ∈ X, / 2 * Rabs (p x - q x)).
  { apply sum_le; intros x Hx. specialize (H x Hx).
    apply Rle_trans with (1 := Rle_abs _). rewrite Rabs_mult, Rmult_comm.
    apply Rmult_le_compat_r; [apply Rabs_pos|]. apply Rabs_le. lra. }
  rewrite sum_scal in H0. lra.
Qed.

(** The best test says "p" where p is larger. *)
Theorem prop_testing_best q p :
  let φ x := if Rlt_dec (q x) (p x) then 1 else 0 in E q φ + E[x ∼ p] (1 - φ x) = 1 - TV p q.
Proof.
  intros φ. rewrite E_minus, E_const. unfold E, TV.
  assert (S : ∑ x ∈ X, Rabs (p x - q x) = ∑ x ∈ X, (2 * (p x * φ x) + (-2 * (q x * φ x) + (q x + -1 * p x)))).
  { apply sum_ext; intros x Hx. unfold φ. destruct Rlt_dec.
    - rewrite Rabs_pos_eq by lra. ring.
    - rewrite Rabs_left1 by lra. ring. }
  rewrite S, !sum_plus, !sum_scal. rewrite (mass_one q), (mass_one p).
  change (∑ x ∈ X, q x * φ x) with (sum X (fun x => q x * φ x)). field.
Qed.

Theorem prop_testing_pinsker q p (φ : A -> R) K : (forall x, x ∈ X -> 0 <= φ x <= 1) ->
  q ≪ p /\ K = KL q p \/ p ≪ q /\ K = KL p q ->
  E q φ + E[x ∼ p] (1 - φ x) >= 1 - sqrt (K / 2) /\
  E q φ + E[x ∼ p] (1 - φ x) >= / 2 * exp (- K).
Proof.
  intros Hφ H. assert (B := prop_testing_bound q p φ Hφ). destruct H as [[H ->]|[H ->]].
  - assert (P := thm_pinsker q p H). destruct (thm_bretagnolle_huber q p H). lra.
  - assert (P := thm_pinsker p q H). destruct (thm_bretagnolle_huber p q H). rewrite (TV_sym p q) in B. lra.
Qed.

End Distances.

(** N independent draws: every token has the same law. *)
Theorem prop_testing_draws {A} {X : list A} (q p : law X) N (φ : list A -> R) : q ≪ p ->
  (forall s, s ∈ sequences (X := X) N -> 0 <= φ s <= 1) ->
  E (trajectory (fun _ => q) N) φ + E[s ∼ trajectory (fun _ => p) N] (1 - φ s) >= / 2 * exp (- (INR N * KL q p)).
Proof.
  intros Hc Hφ. assert (H := covered_every_step (fun _ => q) (fun _ => p) N (fun _ _ _ => Hc)).
  assert (K : KL (trajectory (fun _ => q) N) (trajectory (fun _ => p) N) = INR N * KL q p).
  { rewrite thm_chain_rule by trivial. clear. induction N as [|N IH]; [simpl; ring|].
    rewrite seq_S, sum_app, IH. rewrite S_INR. simpl. rewrite E_const. ring. }
  rewrite <- K. now apply (prop_testing_pinsker _ _ φ _ Hφ (or_introl (conj H eq_refl))).
Qed.

(** ½ is the best constant in Pinsker's inequality. *)
Definition coin (ε : R) (H : 0 < ε < 1) : law [true; false].
Proof.
  refine (Law (fun b : bool => if b then ε else 1 - ε) _ _).
  - intros [] _; lra.
  - simpl; ring.
Defined.

Lemma coin_full ε H : full_support (coin ε H).
Proof. intros [] _; simpl; lra. Qed.

Theorem thm_pinsker_sharp : forall c, 0 <= c < 1 / 2 -> exists q p : law [true; false],
  full_support q /\ full_support p /\ sqrt (c * KL q p) < TV p q.
Proof.
  intros c Hc. set (ε := (1 - 2 * c) / 4).
  assert (H1 : 0 < 1 / 2 < 1) by lra. assert (H2 : 0 < 1 / 2 + ε < 1) by (unfold ε; lra).
  exists (coin _ H1), (coin _ H2). repeat (split; [apply coin_full|]).
  assert (Pε : 0 < ε <= 1 / 4) by (unfold ε; lra).
  assert (T : TV (coin _ H2) (coin _ H1) = ε).
  { unfold TV. simpl. rewrite Rabs_pos_eq, Rabs_left1 by lra. field. }
  set (y := 1 - 4 * ε ^ 2). assert (Y : 0 < y) by (unfold y; nra).
  assert (K : KL (coin _ H1) (coin _ H2) = - ln y / 2).
  { unfold KL, E. simpl. replace ((1 / 2 + ε) / (1 / 2)) with (1 + 2 * ε) by field.
    replace ((1 - (1 / 2 + ε)) / (1 - 1 / 2)) with (1 - 2 * ε) by field.
    replace y with ((1 + 2 * ε) * (1 - 2 * ε)) by (unfold y; ring). rewrite ln_mult by lra. field. }
  rewrite T, K. rewrite <- (sqrt_pow2 ε) by lra. apply sqrt_lt_1_alt. split.
  - apply Rmult_le_pos; [lra|]. assert (L := ln_le_minus_1 y Y). unfold y in *. nra.
  - assert (L := ln_le_minus_1 (/ y) (Rinv_0_lt_compat _ Y)). rewrite ln_Rinv in L by trivial.
    apply Rle_lt_trans with (c * ((/ y - 1) / 2)); [apply Rmult_le_compat_l; lra|].
    apply Rmult_lt_reg_r with y; trivial. replace (c * ((/ y - 1) / 2) * y) with (2 * c * ε ^ 2)
      by (unfold y; field; fold y; lra).
    assert (0 < ε ^ 2) by (apply pow_lt; lra). assert (2 * c < y) by (unfold y, ε; nra).
    rewrite (Rmult_comm (2 * c)). apply Rmult_lt_compat_l; trivial.
Qed.
