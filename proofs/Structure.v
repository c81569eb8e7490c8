(** * Log-sum, data processing, convexity, variational form, entropy *)
From KL Require Export ChainRule.

Lemma sum_swap {A B} (X : list A) (Y : list B) (f : A -> B -> R) :
  ∑ x ∈ X, ∑ y ∈ Y, f x y = ∑ y ∈ Y, ∑ x ∈ X, f x y.
Proof.
  induction X as [|a X IH]; simpl; [symmetry; now apply sum_zero|]. now rewrite IH, <- sum_plus.
Qed.

(** ** Log-sum *)

Lemma log_sum_term a b c : 0 <= a -> 0 <= b -> (b = 0 -> a = 0) -> 0 < c ->
  a * ln c + (a - c * b) <= a * ln (a / b).
Proof.
  intros [Ha| <-] Hb H Hc.
  - assert (Pb : 0 < b) by (destruct Hb as [|Z]; [easy|symmetry in Z; apply H in Z; lra]).
    assert (N := ln_le_minus_1 (c * b / a) ltac:(apply Rdiv_lt_0_compat; [now apply Rmult_lt_0_compat|easy])).
    rewrite ln_div, ln_mult in N by (trivial; now apply Rmult_lt_0_compat). rewrite ln_div by trivial.
    apply (Rmult_le_compat_l a) in N; [|lra].
    replace (a * (c * b / a - 1)) with (c * b - a) in N by (field; lra). lra.
  - assert (0 <= c * b) by (apply Rmult_le_pos; lra). lra.
Qed.

Theorem lem_log_sum {A} (X : list A) (a b : A -> R) :
  (forall x, x ∈ X -> 0 <= a x) -> (forall x, x ∈ X -> 0 <= b x) ->
  (forall x, x ∈ X -> b x = 0 -> a x = 0) ->
  ∑ x ∈ X, a x * ln (a x / b x) >= sum X a * ln (sum X a / sum X b).
Proof.
  intros Ha Hb H. apply Rle_ge.
  assert (Na : 0 <= sum X a) by (now apply sum_nonneg). assert (Nb : 0 <= sum X b) by (now apply sum_nonneg).
  destruct Na as [Pa|Za].
  - destruct Nb as [Pb|Zb].
    2:{ exfalso. symmetry in Zb. assert (Z := sum_nonneg_zero X b Hb Zb).
        assert (S : sum X a = 0) by (apply (sum_zero X a); intros; apply H; auto). lra. }
    set (c := sum X a / sum X b). assert (Pc : 0 < c) by (now apply Rdiv_lt_0_compat).
    apply Rle_trans with (∑ x ∈ X, (a x * ln c + (a x - c * b x))).
    + rewrite sum_plus. rewrite (sum_ext X (fun x => a x * ln c) (fun x => ln c * a x)) by (intros; ring).
      rewrite (sum_ext X (fun x => a x - c * b x) (fun x => a x + - c * b x)) by (intros; ring).
      rewrite sum_plus, !sum_scal. change (∑ x ∈ X, a x) with (sum X a). change (∑ x ∈ X, b x) with (sum X b).
      right. unfold c. field. lra.
    + apply sum_le; intros. apply log_sum_term; auto.
  - rewrite <- Za, Rmult_0_l. symmetry in Za. assert (Z := sum_nonneg_zero X a Ha Za).
    right. symmetry. apply sum_zero. intros x Hx. rewrite (Z x Hx). ring.
Qed.

(** KL written with q ln (q/p). *)
Lemma KL_log_sum {A} {X : list A} (q p : law X) : q ≪ p -> KL q p = ∑ x ∈ X, q x * ln (q x / p x).
Proof.
  intros H. apply sum_ext; intros x Hx. destruct (mass_cases q x Hx) as [->|Hq]; [ring|].
  rewrite <- ln_inv_div; trivial. destruct (mass_cases p x Hx) as [Z|]; [|easy]. rewrite (H x Hx Z) in Hq; lra.
Qed.

Section Processing.
Context {A B : Type} {X : list A} {Y : list B}.
Implicit Types (q p : law X) (κ : A -> law Y).

(** ** Invariance under a bijection: the laws of T(x), where T does not merge points. *)
Theorem thm_structure_invariance (T : A -> B) q p (q' p' : law (map T X)) :
  (forall x, x ∈ X -> q' (T x) = q x) -> (forall x, x ∈ X -> p' (T x) = p x) -> KL q' p' = KL q p.
Proof.
  intros Hq Hp. unfold KL, E. rewrite sum_map. apply sum_ext; intros x Hx. now rewrite Hq, Hp.
Qed.

(** ** Additivity *)
Theorem thm_structure_additivity (q1 p1 : law X) (q2 p2 : law Y) :
  let product (a : law X) (b : law Y) := joint a (fun _ => b) in
  product q1 q2 ≪ product p1 p2 -> KL (product q1 q2) (product p1 p2) = KL q1 p1 + KL q2 p2.
Proof. intros product H. unfold product. rewrite thm_chain_rule_two_steps by exact H. now rewrite E_const. Qed.

(** ** Data processing *)

(** The law of y when x ∼ q and then y ∼ κ x. *)
Definition output q κ : law Y.
Proof.
  refine (Law (fun y => ∑ x ∈ X, q x * κ x y) _ _).
  - intros y Hy. apply sum_nonneg; intros x Hx. apply Rmult_le_pos; now apply mass_nonneg.
  - rewrite <- sum_swap. rewrite <- (mass_one q). apply sum_ext; intros x Hx. rewrite sum_scal, (mass_one (κ x)). ring.
Defined.

Lemma covered_term q p κ x y : q ≪ p -> x ∈ X -> p x * κ x y = 0 -> q x * κ x y = 0.
Proof.
  intros H Hx Z. apply Rmult_integral in Z as [Z|Z]; [rewrite (H x Hx Z)|rewrite Z]; ring.
Qed.

Lemma covered_output q p κ : q ≪ p -> output q κ ≪ output p κ.
Proof.
  intros H y Hy Z. simpl in *. apply sum_zero; intros x Hx. apply (covered_term q p); trivial.
  apply (sum_nonneg_zero X (fun x => p x * κ x y)); trivial.
  intros; apply Rmult_le_pos; now apply mass_nonneg.
Qed.

Theorem thm_structure_data_processing q p κ : q ≪ p -> KL (output q κ) (output p κ) <= KL q p.
Proof.
  intros H. rewrite KL_log_sum by now apply covered_output. rewrite (KL_log_sum q p H). simpl.
  apply Rle_trans with (∑ y ∈ Y, ∑ x ∈ X, q x * κ x y * ln (q x * κ x y / (p x * κ x y))).
  - apply sum_le; intros y Hy. apply Rge_le.
    apply (lem_log_sum X (fun x => q x * κ x y) (fun x => p x * κ x y)).
    + intros; apply Rmult_le_pos; now apply mass_nonneg.
    + intros; apply Rmult_le_pos; now apply mass_nonneg.
    + intros; now apply (covered_term q p).
  - rewrite <- sum_swap. right. apply sum_ext; intros x Hx.
    rewrite (sum_ext Y _ (fun y => q x * ln (q x / p x) * κ x y)).
    + rewrite sum_scal, (mass_one (κ x)). ring.
    + intros y Hy. destruct (mass_cases (κ x) y Hy) as [->|K]; [ring|].
      destruct (mass_cases p x Hx) as [Z|P]; [rewrite (H x Hx Z); ring|].
      replace (q x * κ x y / (p x * κ x y)) with (q x / p x) by (field; lra). ring.
Qed.
End Processing.

(** ** Joint convexity *)

Section Convexity.
Context {A : Type} {X : list A}.
Implicit Types (q p : law X).

Definition mixture (t : R) (H : 0 <= t <= 1) (q1 q2 : law X) : law X.
Proof.
  refine (Law (fun x => t * q1 x + (1 - t) * q2 x) _ _).
  - intros x Hx. assert (N1 := mass_nonneg q1 x Hx). assert (N2 := mass_nonneg q2 x Hx).
    apply Rplus_le_le_0_compat; apply Rmult_le_pos; lra.
  - rewrite sum_plus, !sum_scal. rewrite (mass_one q1), (mass_one q2). ring.
Defined.

Theorem thm_structure_convexity t (H : 0 <= t <= 1) (q1 q2 p1 p2 : law X) : q1 ≪ p1 -> q2 ≪ p2 ->
  KL (mixture t H q1 q2) (mixture t H p1 p2) <= t * KL q1 p1 + (1 - t) * KL q2 p2.
Proof.
  intros H1 H2.
  assert (C : forall s (q p : law X) x, q ≪ p -> x ∈ X -> s * p x = 0 -> s * q x = 0).
  { intros s q p x Hqp Hx Z. apply Rmult_integral in Z as [->|Z]; [|rewrite (Hqp x Hx Z)]; ring. }
  assert (N : forall s (q : law X) x, 0 <= s -> x ∈ X -> 0 <= s * q x).
  { intros. apply Rmult_le_pos; trivial. now apply mass_nonneg. }
  assert (S : forall s (q p : law X) x, q ≪ p -> x ∈ X ->
    s * q x * ln (s * q x / (s * p x)) = s * (q x * ln (q x / p x))).
  { intros s q p x Hqp Hx. destruct (Req_dec s 0) as [->|]; [ring|].
    destruct (mass_cases p x Hx) as [Z|]; [rewrite (Hqp x Hx Z); ring|].
    replace (s * q x / (s * p x)) with (q x / p x) by (field; lra). ring. }
  rewrite KL_log_sum.
  - rewrite (KL_log_sum q1 p1 H1), (KL_log_sum q2 p2 H2), <- !sum_scal, <- sum_plus. simpl.
    apply sum_le; intros x Hx.
    assert (L := lem_log_sum [true; false] (fun i : bool => if i then t * q1 x else (1 - t) * q2 x)
      (fun i : bool => if i then t * p1 x else (1 - t) * p2 x)). simpl in L. rewrite !Rplus_0_r in L.
    rewrite <- (S t q1 p1), <- (S (1 - t) q2 p2) by trivial. apply Rge_le, L.
    + intros [] _; apply N; trivial; lra.
    + intros [] _; apply N; trivial; lra.
    + intros [] _; apply C; trivial.
  - intros x Hx Z. simpl in *.
    assert (N1 := N t p1 x ltac:(lra) Hx). assert (N2 := N (1 - t) p2 x ltac:(lra) Hx).
    rewrite (C t q1 p1 x), (C (1 - t) q2 p2 x) by (trivial; lra). ring.
Qed.

(** ** Cross-entropy *)

Definition cross_entropy q p : R := E[x ∼ q] - ln (p x).
Definition entropy q : R := cross_entropy q q.

Lemma mass_pos q p x : q ≪ p -> x ∈ X -> 0 < q x -> 0 < p x.
Proof. intros H Hx Hq. destruct (mass_cases p x Hx) as [Z|]; [rewrite (H x Hx Z) in Hq; lra|easy]. Qed.

Theorem prop_cross_entropy q p : q ≪ p -> cross_entropy q p = entropy q + KL q p.
Proof.
  intros H. unfold cross_entropy, entropy, cross_entropy, KL. rewrite <- E_plus. apply E_ext; intros x Hx Hq.
  rewrite ln_div by (trivial; now apply (mass_pos q p)). ring.
Qed.

Theorem prop_cross_entropy_least q p : q ≪ p ->
  cross_entropy q q <= cross_entropy q p /\ (cross_entropy q p = cross_entropy q q <-> q ≡ p).
Proof.
  intros H. rewrite (prop_cross_entropy q p H). fold (entropy q).
  assert (N := KL_nonneg q p H). destruct (thm_gibbs q p H) as (_ & _ & _ & Z). rewrite <- Z. split; [lra|split; lra].
Qed.

(** V points, each with the mass 1/V. *)
Theorem prop_cross_entropy_uniform q (u : law X) V : 0 < V -> (forall x, x ∈ X -> u x = 1 / V) ->
  KL q u = ln V - entropy q.
Proof.
  intros HV Hu.
  assert (Hc : q ≪ u).
  { apply full_covered. intros x Hx. rewrite (Hu x Hx). apply Rdiv_lt_0_compat; lra. }
  assert (C := prop_cross_entropy q u Hc). assert (cross_entropy q u = ln V); [|lra].
  transitivity (E q (fun _ => ln V)); [|apply E_const]. apply E_ext; intros x Hx _.
  rewrite (Hu x Hx), ln_div, ln_1 by lra. ring.
Qed.

(** ** The variational form of Donsker and Varadhan *)

(** p tilted by f: p e^f / E_p[e^f]. *)
Definition tilted p (f : A -> R) : law X.
Proof.
  refine (Law (fun x => p x * exp (f x) / (E[y ∼ p] exp (f y))) _ _).
  - intros x Hx. apply Rmult_le_pos; [apply Rmult_le_pos; [now apply mass_nonneg|left; apply exp_pos]|].
    destruct (Req_dec (E[y ∼ p] exp (f y)) 0) as [Z|N]; [rewrite Z, Rinv_0; lra|].
    left. apply Rinv_0_lt_compat. assert (0 <= E[y ∼ p] exp (f y)); [|lra].
    apply E_nonneg; intros; left; apply exp_pos.
  - unfold Rdiv. rewrite (sum_ext X _ (fun x => / (E[y ∼ p] exp (f y)) * (p x * exp (f x)))) by (intros; ring).
    rewrite sum_scal. apply Rinv_l. intros Z.
    destruct (law_point p) as (x & Hx & Hp).
    assert (N := E_nonneg_zero p (fun y => exp (f y)) ltac:(intros; left; apply exp_pos) Z x Hx Hp).
    assert (P := exp_pos (f x)). cbv beta in N. lra.
Defined.

Lemma E_exp_pos p f : 0 < E[x ∼ p] exp (f x).
Proof.
  assert (0 <= E[x ∼ p] exp (f x)) as [|Z] by (apply E_nonneg; intros; left; apply exp_pos); [easy|exfalso].
  destruct (law_point p) as (x & Hx & Hp). symmetry in Z.
  assert (N := E_nonneg_zero p (fun y => exp (f y)) ltac:(intros; left; apply exp_pos) Z x Hx Hp).
  assert (P := exp_pos (f x)). cbv beta in N. lra.
Qed.

Lemma covered_tilted q p f : q ≪ p -> q ≪ tilted p f.
Proof.
  intros H x Hx Z. simpl in Z. apply H; trivial. assert (P := E_exp_pos p f). assert (P' := exp_pos (f x)).
  apply Rmult_integral in Z as [Z|Z].
  - apply Rmult_integral in Z. lra.
  - apply Rinv_0_lt_compat in P. lra.
Qed.

Theorem thm_donsker_varadhan_gap q p f : q ≪ p ->
  KL q p - (E q f - ln (E[x ∼ p] exp (f x))) = KL q (tilted p f).
Proof.
  intros H. assert (P := E_exp_pos p f). unfold KL.
  transitivity (E[x ∼ q] (- ln (p x / q x) + (- f x + ln (E[y ∼ p] exp (f y))))).
  - rewrite !E_plus, !E_opp, E_const. ring.
  - apply E_ext; intros x Hx Hq. assert (Hp := mass_pos q p x H Hx Hq). simpl.
    assert (P' := exp_pos (f x)).
    assert (P2 : 0 < p x * exp (f x)) by (now apply Rmult_lt_0_compat).
    rewrite (ln_div (p x) (q x)), (ln_div (_ / _) (q x)), (ln_div (_ * _)), ln_mult, ln_exp
      by (trivial; now apply Rdiv_lt_0_compat). ring.
Qed.

Theorem thm_donsker_varadhan q p f : q ≪ p -> E q f - ln (E[x ∼ p] exp (f x)) <= KL q p.
Proof.
  intros H. assert (G := thm_donsker_varadhan_gap q p f H).
  assert (N := KL_nonneg q (tilted p f) (covered_tilted q p f H)). lra.
Qed.

(** KL is the supremum: some f comes within ε. *)
Theorem thm_donsker_varadhan_supremum q p ε : q ≪ p -> 0 < ε ->
  exists f, KL q p - ε <= E q f - ln (E[x ∼ p] exp (f x)).
Proof.
  intros H Hε. exists (fun x => if Rlt_dec 0 (q x) then ln (q x / p x) else ln ε).
  assert (Z := P_zero_nonneg p q). assert (O := P_pos_zero p q).
  assert (Hc := P_pos_pos q p H).
  assert (S : E[x ∼ p] exp (if Rlt_dec 0 (q x) then ln (q x / p x) else ln ε) = 1 + ε * P_zero p q).
  { transitivity ((∑ x ∈ X, q x) + ε * P_zero p q); [|now rewrite (mass_one q)].
    unfold P_zero. rewrite <- E_scal. unfold E. rewrite <- sum_plus. apply sum_ext; intros x Hx. destruct Rlt_dec as [Q|Q].
    - assert (P := mass_pos q p x H Hx Q). rewrite exp_ln by (now apply Rdiv_lt_0_compat). field; lra.
    - destruct (mass_cases q x Hx) as [->|]; [|easy]. rewrite exp_ln by trivial. ring. }
  rewrite S.
  assert (K : E[x ∼ q] (if Rlt_dec 0 (q x) then ln (q x / p x) else ln ε) = KL q p).
  { apply E_ext; intros x Hx Q. destruct Rlt_dec; [|easy]. apply ln_inv_div; trivial. now apply (mass_pos q p). }
  rewrite K. assert (N : 0 <= ε * P_zero p q) by (apply Rmult_le_pos; lra).
  assert (L := ln_le_minus_1 (1 + ε * P_zero p q) ltac:(lra)).
  assert (ε * P_zero p q <= ε * 1); [|lra]. apply Rmult_le_compat_l; lra.
Qed.

(** ** Off the support *)

Theorem prop_support_irrelevant q p p' : (forall x, x ∈ X -> 0 < q x -> p x = p' x) -> KL q p = KL q p'.
Proof. intros H. apply E_ext; intros x Hx Hq. now rewrite H. Qed.

Theorem prop_support_means q p :
  E[x ∼ p] (q x / p x) = 1 - P_zero q p /\ E[x ∼ q] (p x / q x) = 1 - P_zero p q.
Proof. now rewrite !lem_mean_of_r, !P_pos_zero. Qed.
End Convexity.
