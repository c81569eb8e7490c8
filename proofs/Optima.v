(** * Where training ends: the optimum π*, fields in the logits of a softmax, the frozen penalty *)
From KL Require Export Structure Gradients.
From Coquelicot Require Import Coquelicot.

(** ** Optima among all laws *)

Section Optima.
Context {A : Type} {X : list A}.
Variables (reward : A -> R) (ref : law X) (β : R).
Hypotheses (β_pos : 0 < β) (ref_full : full_support ref).

(** π* = ref e^{R/β} / Z and Z. *)
Definition optimum : law X := tilted ref (fun x => reward x / β).
Definition Z : R := E[x ∼ ref] exp (reward x / β).
Definition objective (π : law X) : R := E π reward - β * KL π ref.

Theorem thm_optima_by_placement_gap π :
  β * ln Z - objective π = β * KL π optimum.
Proof.
  assert (H := full_covered π ref ref_full).
  assert (G := thm_donsker_varadhan_gap π ref (fun x => reward x / β) H). unfold objective, optimum, Z.
  rewrite <- G. replace (E[x ∼ π] reward x / β) with (/ β * E π reward).
  - field. lra.
  - rewrite <- E_scal. apply E_ext; intros; field; lra.
Qed.

Lemma optimum_covers π : π ≪ optimum.
Proof. apply covered_tilted. now apply full_covered. Qed.

Theorem thm_optima_by_placement_value : objective optimum = β * ln Z.
Proof.
  assert (G := thm_optima_by_placement_gap optimum). rewrite (same_KL optimum optimum) in G by easy. lra.
Qed.

Theorem thm_optima_by_placement π :
  objective optimum - objective π = β * KL π optimum /\
  objective π <= objective optimum /\ (objective π = objective optimum <-> π ≡ optimum).
Proof.
  assert (G := thm_optima_by_placement_gap π). rewrite <- thm_optima_by_placement_value in G.
  assert (N := KL_nonneg π optimum (optimum_covers π)).
  destruct (thm_gibbs π optimum (optimum_covers π)) as (_ & _ & _ & I).
  assert (P : 0 <= β * KL π optimum) by (apply Rmult_le_pos; lra).
  split; [easy|split; [lra|]]. rewrite <- I. split; intros S.
  - assert (T : β * KL π optimum = 0) by lra. apply Rmult_integral in T. lra.
  - rewrite S in G. lra.
Qed.

(** With the reverse divergence: π° = β ref / (ν - R), where ν > max R makes it a law. *)
Theorem thm_optima_by_placement_reverse (ν : R) (best : law X) :
  (forall x, x ∈ X -> reward x < ν) -> (forall x, x ∈ X -> best x = β * ref x / (ν - reward x)) ->
  let reverse (π : law X) := E π reward - β * KL ref π in
  ν = β + E best reward /\
  forall π, full_support π ->
    reverse best - reverse π = β * (E[x ∼ ref] k3 (π x / best x)) /\
    reverse π <= reverse best /\ (reverse π = reverse best <-> π ≡ best).
Proof.
  intros Hν Hb reverse.
  assert (Fb : full_support best).
  { intros x Hx. rewrite (Hb x Hx). specialize (Hν x Hx). apply Rdiv_lt_0_compat; [|lra].
    apply Rmult_lt_0_compat; [lra|now apply ref_full]. }
  assert (M : forall π : law X, E π reward = ν - β * (E[x ∼ ref] (π x / best x))).
  { intros π. rewrite <- E_scal. transitivity (E π (fun _ => ν) - E[x ∼ ref] (β * (π x / best x))); [|now rewrite E_const].
    unfold E. replace (∑ x ∈ X, π x * ν) with (∑ x ∈ X, (π x * reward x + ref x * (β * (π x / best x)))).
    - rewrite sum_plus. change (∑ x ∈ X, π x * reward x) with (sum X (fun x => π x * reward x)). ring.
    - apply sum_ext; intros x Hx. rewrite (Hb x Hx). specialize (Hν x Hx). assert (Q := ref_full x Hx).
      field. repeat split; lra. }
  split.
  - rewrite (M best). rewrite (E_ext ref _ (fun _ => 1)).
    + rewrite E_const. ring.
    + intros x Hx _. specialize (Fb x Hx). field; lra.
  - intros π Fπ.
    assert (G : reverse best - reverse π = β * (E[x ∼ ref] k3 (π x / best x))).
    { unfold reverse. rewrite (M best), (M π).
      rewrite (E_ext ref (fun x => best x / best x) (fun _ => 1)) by (intros x Hx _; specialize (Fb x Hx); field; lra).
      rewrite E_const.
      assert (D : KL ref π - KL ref best = E[x ∼ ref] - ln (π x / best x)).
      { unfold KL. rewrite <- E_minus. apply E_ext; intros x Hx _.
        assert (Q := ref_full x Hx). specialize (Fπ x Hx). specialize (Fb x Hx). rewrite !ln_div by trivial. ring. }
      unfold k3. rewrite E_minus, E_minus, E_const. rewrite E_opp in D.
      replace (KL ref π) with (KL ref best + - (E[x ∼ ref] ln (π x / best x))) by lra. ring. }
    assert (K : forall x, x ∈ X -> 0 <= k3 (π x / best x)).
    { intros x Hx. apply k3_nonneg, Rdiv_lt_0_compat; auto. }
    assert (N : 0 <= E[x ∼ ref] k3 (π x / best x)) by (apply E_nonneg; auto).
    assert (P : 0 <= β * (E[x ∼ ref] k3 (π x / best x))) by (apply Rmult_le_pos; lra).
    split; [easy|split; [lra|split]].
    + intros S. assert (T : β * (E[x ∼ ref] k3 (π x / best x)) = 0) by lra. apply Rmult_integral in T as [T|T]; [lra|].
      intros x Hx. assert (Z0 := E_nonneg_zero ref (fun x => k3 (π x / best x)) (fun y Hy _ => K y Hy) T x Hx (ref_full x Hx)).
      cbv beta in Z0. apply k3_zero in Z0; [|apply Rdiv_lt_0_compat; auto]. specialize (Fb x Hx).
      replace (π x) with (π x / best x * best x) by (field; lra). rewrite Z0; ring.
    + intros S. assert (S1 : E π reward = E best reward) by (apply sum_ext; intros x Hx; now rewrite (S x Hx)).
      assert (S2 : KL ref π = KL ref best) by (apply sum_ext; intros x Hx; now rewrite (S x Hx)).
      unfold reverse. now rewrite S1, S2.
Qed.
End Optima.

(** ** Fields in the logits of a softmax *)

Section Fields.
Context {A : Type} {X : list A}.
Hypothesis X_not_empty : X <> [].
Hypothesis eq_dec : forall x y : A, {x = y} + {x <> y}.
Hypothesis X_distinct : NoDup X.
Implicit Types (z g : A -> R) (ref old : law X).

Let soft (z : A -> R) : law X := softmax X_not_empty z.
(** The policy as a function of the j-th logit alone. *)
Let along (z : A -> R) (j : A) (s : R) : law X := soft (replace_logit eq_dec z j s).

Lemma soft_full z : full_support (soft z).
Proof. apply softmax_full. Qed.

Lemma along_same z j f : E (along z j (z j)) f = E (soft z) f.
Proof. apply E_replace_same. Qed.

Lemma along_derive z j : j ∈ X -> forall x, x ∈ X -> ex_derive (fun s : R => along z j s x) (z j).
Proof. intros Hj x Hx. eexists. now apply softmax_partial. Qed.

(** The gradient of a mean, in the logits: πⱼ (gⱼ - E g). *)
Lemma mean_field z j g : j ∈ X -> is_derive (fun s : R => E (along z j s) g) (z j) (soft z j * (g j - E (soft z) g)).
Proof.
  intros Hj. destruct (lem_score_softmax X_not_empty eq_dec X_distinct z j Hj) as [_ S].
  assert (D := is_derive_E (along z j) (z j) (fun s => softmax_full X_not_empty _) (along_derive z j Hj) g).
  eapply is_derive_eq; [exact D|]. rewrite along_same. exact (S g).
Qed.

(** It vanishes in all logits only if g is constant. *)
Lemma field_zero (q : law X) g : full_support q ->
  ((forall j, j ∈ X -> q j * (g j - E q g) = 0) <-> forall j, j ∈ X -> g j = E q g).
Proof.
  intros F. split; intros H j Hj; specialize (H j Hj).
  - apply Rmult_integral in H. specialize (F j Hj). lra.
  - rewrite H. ring.
Qed.

Theorem thm_optima_by_placement_reward_alone z g :
  (forall j, j ∈ X -> is_derive (fun s : R => E (along z j s) g) (z j) 0) <-> exists c, forall x, x ∈ X -> g x = c.
Proof.
  split.
  - intros H. exists (E (soft z) g). apply field_zero; [apply soft_full|]. intros j Hj.
    assert (D := mean_field z j g Hj). apply is_derive_unique in D. assert (D0 := H j Hj).
    apply is_derive_unique in D0. lra.
  - intros [c H] j Hj. eapply is_derive_eq; [now apply mean_field|].
    rewrite (H j Hj), (E_ext _ g (fun _ => c)) by (intros; auto). rewrite E_const. ring.
Qed.

(** The gradient of KL(π‖ref): πⱼ (k₁ⱼ - KL). *)
Lemma KL_field z j ref : full_support ref -> j ∈ X ->
  is_derive (fun s : R => KL (along z j s) ref) (z j) (soft z j * (k1 (ref j / soft z j) - KL (soft z) ref)).
Proof.
  intros F Hj. destruct (lem_score_softmax X_not_empty eq_dec X_distinct z j Hj) as [_ S].
  assert (D := gradient_KL (along z j) ref (z j) (fun s => softmax_full X_not_empty _) F (along_derive z j Hj)).
  eapply is_derive_eq; [exact D|]. rewrite along_same.
  transitivity (E[x ∼ soft z] (k1 (ref x / soft z x) * score (along z j) (z j) x)).
  - apply E_ext; intros x Hx _. unfold along, soft. now rewrite softmax_replace_same.
  - exact (S (fun x => k1 (ref x / soft z x))).
Qed.

(** A divergence has its gradient zero only where the laws agree. *)
Lemma KL_field_zero z ref : full_support ref ->
  ((forall j, j ∈ X -> is_derive (fun s : R => KL (along z j s) ref) (z j) 0) <-> soft z ≡ ref).
Proof.
  intros F. assert (Fs := soft_full z). split.
  - intros H. assert (C : forall j, j ∈ X -> k1 (ref j / soft z j) = KL (soft z) ref).
    { apply (field_zero (soft z) (fun x => k1 (ref x / soft z x)) Fs). intros j Hj.
      assert (D := KL_field z j ref F Hj). apply is_derive_unique in D. assert (D0 := H j Hj).
      apply is_derive_unique in D0. change (E[x ∼ soft z] k1 (ref x / soft z x)) with (KL (soft z) ref). lra. }
    (* so ref is a constant times the policy, and both have the sum 1 *)
    assert (L : forall j, j ∈ X -> ref j = exp (- KL (soft z) ref) * soft z j).
    { intros j Hj. specialize (C j Hj). unfold k1 in C. specialize (Fs j Hj). specialize (F j Hj).
      replace (- KL (soft z) ref) with (ln (ref j / soft z j)) by lra.
      rewrite exp_ln by (now apply Rdiv_lt_0_compat). field; lra. }
    assert (S := mass_one ref). rewrite (sum_ext X _ _ L), sum_scal, (mass_one (soft z)) in S.
    intros j Hj. rewrite (L j Hj). replace (exp (- KL (soft z) ref)) with 1 by lra. ring.
  - intros S j Hj. eapply is_derive_eq; [now apply KL_field|]. rewrite (same_KL _ _ S), <- (S j Hj).
    specialize (Fs j Hj). unfold k1. replace (soft z j / soft z j) with 1 by (field; lra). rewrite ln_1. ring.
Qed.

(** The frozen penalty c = ln (old/ref) has the gradient of KL(π‖ref) only where π = old. *)
Theorem prop_frozen_penalty_only_at_old z ref old : full_support ref -> full_support old ->
  let c x := ln (old x / ref x) in
  (forall j, j ∈ X -> Derive (fun s : R => E (along z j s) c) (z j) = Derive (fun s : R => KL (along z j s) ref) (z j))
  <-> soft z ≡ old.
Proof.
  intros F O c. rewrite <- (KL_field_zero z old O).
  assert (D : forall j, j ∈ X -> is_derive (fun s : R => KL (along z j s) old) (z j)
    (Derive (fun s : R => KL (along z j s) ref) (z j) - Derive (fun s : R => E (along z j s) c) (z j))).
  { intros j Hj. assert (D1 := KL_field z j ref F Hj). assert (D2 := mean_field z j c Hj).
    assert (U1 := is_derive_unique _ _ _ D1). assert (U2 := is_derive_unique _ _ _ D2). rewrite U1, U2.
    apply (is_derive_ext (fun s => KL (along z j s) ref - E (along z j s) c)).
    - intros s. assert (M := frozen_mean (along z j) ref old F O s).
      assert (Q : KL (along z j s) ref - E (along z j s) c = KL (along z j s) old) by (rewrite <- M; unfold c; ring).
      exact Q.
    - now apply derive_minus. }
  split; intros H j Hj.
  - eapply is_derive_eq; [now apply D|]. rewrite (H j Hj). ring.
  - assert (U := is_derive_unique _ _ _ (D j Hj)). assert (U0 := is_derive_unique _ _ _ (H j Hj)). lra.
Qed.

(** Unless R - βc is constant, no policy of full support is stationary for the frozen objective. *)
Theorem prop_frozen_penalty_no_optimum z (reward c : A -> R) β :
  (forall j, j ∈ X -> is_derive (fun s : R => E[x ∼ along z j s] (reward x - β * c x)) (z j) 0) ->
  exists v, forall x, x ∈ X -> reward x - β * c x = v.
Proof. apply (thm_optima_by_placement_reward_alone z (fun x => reward x - β * c x)). Qed.

(** The field of R - β KL vanishes only at π*. *)
Theorem thm_optima_by_placement_field z reward ref β : 0 < β -> full_support ref ->
  ((forall j, j ∈ X -> is_derive (fun s : R => objective reward ref β (along z j s)) (z j) 0)
   <-> soft z ≡ optimum reward ref β).
Proof.
  intros Hβ F.
  assert (Fo : full_support (optimum reward ref β)).
  { intros x Hx. simpl. apply Rdiv_lt_0_compat; [|apply E_exp_pos]. apply Rmult_lt_0_compat; [now apply F|apply exp_pos]. }
  rewrite <- (KL_field_zero z _ Fo).
  assert (G : forall j s, - β * KL (along z j s) (optimum reward ref β) + β * ln (Z reward ref β)
    = objective reward ref β (along z j s)).
  { intros j s. assert (G := thm_optima_by_placement_gap reward ref β Hβ F (along z j s)). lra. }
  split; intros H j Hj.
  - apply (is_derive_ext (fun s => / - β * (objective reward ref β (along z j s) - β * ln (Z reward ref β)))).
    + intros s. assert (Q : / - β * (objective reward ref β (along z j s) - β * ln (Z reward ref β))
        = KL (along z j s) (optimum reward ref β)) by (rewrite <- G; field; lra). exact Q.
    + eapply is_derive_eq.
      * apply derive_scal, derive_minus; [now apply H|exact (is_derive_const (β * ln (Z reward ref β)) (z j))].
      * unfold zero; simpl; ring.
  - apply (is_derive_ext _ _ _ _ (G j)). eapply is_derive_eq.
    + apply derive_plus; [apply derive_scal; now apply H|exact (is_derive_const (β * ln (Z reward ref β)) (z j))].
    + unfold zero; simpl; ring.
Qed.
End Fields.

(** ** k₃ in the reward, two actions: the policy (x, 1-x), the reference (a, 1-a) *)

(** g(x): the first coefficient minus the second. *)
Definition g2 (a x : R) : R := k3 (a / x) - k3 ((1 - a) / (1 - x)).

Theorem thm_k3_reward_two_actions_derivative : forall a x, 0 < a < 1 -> 0 < x < 1 ->
  g2 a a = 0 /\ is_derive (g2 a) x ((1 - 2 * x) * (x - a) / (x ^ 2 * (1 - x) ^ 2)).
Proof.
  intros a x Ha Hx. split.
  - unfold g2. replace (a / a) with 1 by (field; lra). replace ((1 - a) / (1 - a)) with 1 by (field; lra). ring.
  - unfold g2, k3. auto_derive.
    + assert (0 < / x) by (apply Rinv_0_lt_compat; lra). assert (0 < / (1 - x)) by (apply Rinv_0_lt_compat; lra).
      change (1 + - x) with (1 - x). repeat split; try lra; apply Rmult_lt_0_compat; lra.
    + field. repeat split; lra.
Qed.
