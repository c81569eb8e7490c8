(** * Gradients: scores, and the on-policy gradients of k₁, k₂, k₃

   [π s] is a policy that depends on one real parameter s; [π t] is the policy that sampled.
   With several parameters these are the partial derivatives. *)
From KL Require Export Means.
From Coquelicot Require Import Coquelicot.

Lemma is_derive_eq (f : R -> R) (t d d' : R) : is_derive f t d -> d = d' -> is_derive f t d'.
Proof. now intros H <-. Qed.

(** Coquelicot's rules, restated for R -> R with no algebraic structure left in the types. *)
Section Rules.
Variables (f g : R -> R) (t c df dg : R).
Hypothesis (Df : is_derive f t df) (Dg : is_derive g t dg).

Lemma derive_plus : is_derive (fun s : R => f s + g s) t (df + dg).
Proof. exact (is_derive_plus f g t df dg Df Dg). Qed.
Lemma derive_minus : is_derive (fun s : R => f s - g s) t (df - dg).
Proof. exact (is_derive_minus f g t df dg Df Dg). Qed.
Lemma derive_mult : is_derive (fun s : R => f s * g s) t (df * g t + f t * dg).
Proof. exact (is_derive_mult f g t df dg Df Dg Rmult_comm). Qed.
Lemma derive_opp : is_derive (fun s : R => - f s) t (- df).
Proof. exact (is_derive_opp f t df Df). Qed.
Lemma derive_scal : is_derive (fun s : R => c * f s) t (c * df).
Proof. exact (is_derive_scal f t c df Df). Qed.
Lemma derive_inv : f t <> 0 -> is_derive (fun s : R => / f s) t (- df / (f t) ^ 2).
Proof. exact (is_derive_inv f t df Df). Qed.
Lemma derive_comp (φ : R -> R) (dφ : R) : is_derive φ (f t) dφ -> is_derive (fun s : R => φ (f s)) t (df * dφ).
Proof. intros D. exact (is_derive_comp φ f t dφ df D Df). Qed.
Lemma derive_ln : 0 < f t -> is_derive (fun s : R => ln (f s)) t (df * / f t).
Proof. intros P. apply derive_comp. now apply is_derive_Reals, derivable_pt_lim_ln. Qed.
Lemma derive_exp : is_derive (fun s : R => exp (f s)) t (df * exp (f t)).
Proof. apply derive_comp, is_derive_exp. Qed.
End Rules.

(** The derivative of a finite sum is the sum of the derivatives. *)
Lemma is_derive_sum {A} (X : list A) (f : R -> A -> R) (t : R) (f' : A -> R) :
  (forall x, x ∈ X -> is_derive (fun s : R => f s x) t (f' x)) ->
  is_derive (fun s : R => ∑ x ∈ X, f s x) t (∑ x ∈ X, f' x).
Proof.
  induction X as [|a X IH]; simpl; intros H; [exact (is_derive_const 0 t)|].
  apply derive_plus; auto.
Qed.

Lemma is_derive_k1 r : 0 < r -> is_derive k1 r (- / r).
Proof. intros H. unfold k1. auto_derive; [easy|cbv beta; field; lra]. Qed.
Lemma is_derive_k2 r : 0 < r -> is_derive k2 r (ln r / r).
Proof. intros H. unfold k2. auto_derive; [easy|cbv beta; field; lra]. Qed.
Lemma is_derive_k3 r : 0 < r -> is_derive k3 r (1 - / r).
Proof. intros H. unfold k3. auto_derive; [easy|cbv beta; field; lra]. Qed.

Section Gradients.
Context {A : Type} {X : list A}.
Variables (π : R -> law X) (ref old : law X) (t : R).
Hypothesis π_full : forall s, full_support (π s).
Hypothesis ref_full : full_support ref.
Hypothesis old_full : full_support old.
Hypothesis π_derive : forall x, x ∈ X -> ex_derive (fun s : R => π s x) t.

(** The score: the derivative of ln π(x). *)
Definition score (x : A) : R := Derive (fun s : R => ln (π s x)) t.

Lemma is_derive_π x : x ∈ X -> is_derive (fun s : R => π s x) t (π t x * score x).
Proof.
  intros Hx. assert (D := Derive_correct _ _ (π_derive x Hx)). assert (P := π_full t x Hx).
  eapply is_derive_eq; [exact D|]. unfold score.
  assert (U : Derive (fun s : R => ln (π s x)) t = Derive (fun s : R => π s x) t * / π t x)
    by (apply is_derive_unique; now apply derive_ln).
  rewrite U. cbv beta; field; lra.
Qed.

Lemma is_derive_ln_π x : x ∈ X -> is_derive (fun s : R => ln (π s x)) t (score x).
Proof.
  intros Hx. apply Derive_correct. eexists. apply derive_ln; [now apply is_derive_π|now apply π_full].
Qed.

Lemma is_derive_E g : is_derive (fun s : R => E[x ∼ π s] g x) t (E[x ∼ π t] (g x * score x)).
Proof.
  eapply is_derive_eq.
  - apply (is_derive_sum X (fun s x => π s x * g x) t (fun x => π t x * score x * g x + π t x * 0)). intros x Hx.
    apply derive_mult; [now apply is_derive_π|exact (is_derive_const (g x) t)].
  - apply sum_ext; intros; cbv beta; ring.
Qed.

Lemma is_derive_ratio x : x ∈ X -> is_derive (fun s : R => ref x / π s x) t (- (ref x / π t x) * score x).
Proof.
  intros Hx. assert (P := π_full t x Hx). eapply is_derive_eq.
  - apply derive_scal, derive_inv; [now apply is_derive_π|lra].
  - cbv beta; field; lra.
Qed.

Lemma E_score : E[x ∼ π t] score x = 0.
Proof.
  assert (D := is_derive_E (fun _ => 1)). apply is_derive_unique in D.
  rewrite (Derive_ext _ (fun _ => 1)) in D by (intros; apply E_const).
  rewrite Derive_const in D. rewrite D. apply E_ext; intros; ring.
Qed.

Theorem lem_score :
  (forall x, x ∈ X -> is_derive (fun s : R => ref x / π s x) t (- (ref x / π t x) * score x)) /\
  (forall x, x ∈ X -> is_derive (fun s : R => ln (ref x / π s x)) t (- score x)) /\
  (forall x, x ∈ X -> is_derive (fun s : R => π s x / old x) t (π t x / old x * score x)) /\
  (forall g, is_derive (fun s : R => E[x ∼ π s] g x) t (E[x ∼ π t] (g x * score x))) /\
  E[x ∼ π t] score x = 0.
Proof.
  split; [|split; [|split; [|split]]].
  - apply is_derive_ratio.
  - intros x Hx. assert (P := π_full t x Hx). assert (Q := ref_full x Hx).
    eapply is_derive_eq.
    + apply derive_ln; [now apply is_derive_ratio|now apply Rdiv_lt_0_compat].
    + cbv beta; field; lra.
  - intros x Hx. eapply is_derive_eq.
    + apply derive_mult; [now apply is_derive_π|exact (is_derive_const (/ old x) t)].
    + unfold Rdiv, zero; simpl; ring.
  - apply is_derive_E.
  - apply E_score.
Qed.

(** The derivative of an estimator k(r) at a fixed sample x. *)
Lemma is_derive_at_sample (φ φ' : R -> R) x : x ∈ X -> (forall r, 0 < r -> is_derive φ r (φ' r)) ->
  is_derive (fun s : R => φ (ref x / π s x)) t (- (ref x / π t x) * φ' (ref x / π t x) * score x).
Proof.
  intros Hx D. eapply is_derive_eq.
  - apply (derive_comp (fun s => ref x / π s x)); [now apply is_derive_ratio|].
    apply D, Rdiv_lt_0_compat; [now apply ref_full|now apply π_full].
  - cbv beta; ring.
Qed.

Lemma loss_gradient (φ φ' : R -> R) : (forall r, 0 < r -> is_derive φ r (φ' r)) ->
  E[x ∼ π t] Derive (fun s : R => φ (ref x / π s x)) t =
  E[x ∼ π t] (- (ref x / π t x) * φ' (ref x / π t x) * score x).
Proof. intros D. apply E_ext; intros x Hx _. now apply is_derive_unique, is_derive_at_sample. Qed.

(** "The sum of both columns is the gradient of the mean." *)
Lemma gradient_of_mean (φ φ' : R -> R) : (forall r, 0 < r -> is_derive φ r (φ' r)) ->
  is_derive (fun s : R => E[x ∼ π s] φ (ref x / π s x)) t
    (E[x ∼ π t] (φ (ref x / π t x) * score x) + E[x ∼ π t] Derive (fun s : R => φ (ref x / π s x)) t).
Proof.
  intros D. eapply is_derive_eq.
  - apply (is_derive_sum X (fun s x => π s x * φ (ref x / π s x)) t
      (fun x => π t x * score x * φ (ref x / π t x)
        + π t x * (- (ref x / π t x) * φ' (ref x / π t x) * score x))). intros x Hx.
    apply (derive_mult (fun s => π s x) (fun s => φ (ref x / π s x)));
      [now apply is_derive_π|now apply is_derive_at_sample].
  - rewrite (loss_gradient φ φ' D), <- E_plus. apply sum_ext; intros; cbv beta; ring.
Qed.

Lemma is_derive_KL_reverse : is_derive (fun s : R => KL ref (π s)) t (E[x ∼ π t] (- (ref x / π t x) * score x)).
Proof.
  eapply is_derive_eq.
  - apply (is_derive_sum X (fun s x => ref x * - ln (π s x / ref x)) t
      (fun x => ref x * - (score x - 0))). intros x Hx.
    assert (Q := ref_full x Hx). apply derive_scal, derive_opp.
    apply (is_derive_ext (fun s => ln (π s x) - ln (ref x))).
    + intros s. symmetry. apply ln_div; trivial. now apply π_full.
    + apply derive_minus; [now apply is_derive_ln_π|exact (is_derive_const (ln (ref x)) t)].
  - apply sum_ext; intros x Hx. assert (P := π_full t x Hx). cbv beta; field; lra.
Qed.

(** *** In the loss *)

Theorem thm_on_policy_gradients_loss_k1 : E[x ∼ π t] Derive (fun s : R => k1 (ref x / π s x)) t = 0.
Proof.
  rewrite (loss_gradient k1 _ is_derive_k1), <- E_score. apply E_ext; intros x Hx _.
  assert (P := π_full t x Hx). assert (Q := ref_full x Hx). cbv beta; field; lra.
Qed.

Lemma gradient_KL : is_derive (fun s : R => KL (π s) ref) t (E[x ∼ π t] (k1 (ref x / π t x) * score x)).
Proof.
  eapply is_derive_eq; [apply (gradient_of_mean k1 _ is_derive_k1)|].
  rewrite thm_on_policy_gradients_loss_k1. ring.
Qed.

Theorem thm_on_policy_gradients_loss_k2 :
  is_derive (fun s : R => KL (π s) ref) t (E[x ∼ π t] Derive (fun s : R => k2 (ref x / π s x)) t).
Proof.
  eapply is_derive_eq; [apply gradient_KL|].
  rewrite (loss_gradient k2 _ is_derive_k2). apply E_ext; intros x Hx _.
  assert (P := π_full t x Hx). assert (Q := ref_full x Hx). unfold k1. cbv beta; field; lra.
Qed.

Theorem thm_on_policy_gradients_loss_k3 :
  is_derive (fun s : R => KL ref (π s)) t (E[x ∼ π t] Derive (fun s : R => k3 (ref x / π s x)) t).
Proof.
  eapply is_derive_eq; [apply is_derive_KL_reverse|].
  rewrite (loss_gradient k3 _ is_derive_k3).
  transitivity (E[x ∼ π t] (- (ref x / π t x) * score x) + E[x ∼ π t] score x); [rewrite E_score; ring|].
  rewrite <- E_plus. apply E_ext; intros x Hx _.
  assert (P := π_full t x Hx). assert (Q := ref_full x Hx). cbv beta; field; lra.
Qed.

(** *** In the reward *)

Lemma mean_k3 s : E[x ∼ π s] k3 (ref x / π s x) = KL (π s) ref.
Proof.
  rewrite (E_ext _ _ (fun x => k 1 (ref x / π s x))) by (intros; apply k3_k).
  apply prop_mean_of_k3_unbiased; apply full_covered; auto.
Qed.

Theorem thm_on_policy_gradients_reward_k1 :
  is_derive (fun s : R => KL (π s) ref) t (E[x ∼ π t] (k1 (ref x / π t x) * score x)).
Proof. apply gradient_KL. Qed.

Theorem thm_on_policy_gradients_reward_k2 :
  is_derive (fun s : R => E[x ∼ π s] k2 (ref x / π s x) - KL (π s) ref) t
    (E[x ∼ π t] (k2 (ref x / π t x) * score x)).
Proof.
  eapply is_derive_eq.
  - apply derive_minus; [apply (gradient_of_mean k2 _ is_derive_k2)|apply thm_on_policy_gradients_loss_k2].
  - cbv beta; ring.
Qed.

Theorem thm_on_policy_gradients_reward_k3 :
  is_derive (fun s : R => KL (π s) ref - KL ref (π s)) t (E[x ∼ π t] (k3 (ref x / π t x) * score x)).
Proof.
  eapply is_derive_eq.
  - apply derive_minus; [|apply thm_on_policy_gradients_loss_k3].
    apply (is_derive_ext (fun s => E[x ∼ π s] k3 (ref x / π s x))).
    2:apply (gradient_of_mean k3 _ is_derive_k3).
    apply mean_k3.
  - cbv beta; ring.
Qed.
(** *** The sum of both columns is the gradient of the mean of the estimator; for k₁ and k₃ that is ∇K. *)

Theorem thm_on_policy_gradients_sum :
  is_derive (fun s : R => KL (π s) ref) t
    (E[x ∼ π t] (k1 (ref x / π t x) * score x) + E[x ∼ π t] Derive (fun s : R => k1 (ref x / π s x)) t) /\
  is_derive (fun s : R => E[x ∼ π s] k2 (ref x / π s x)) t
    (E[x ∼ π t] (k2 (ref x / π t x) * score x) + E[x ∼ π t] Derive (fun s : R => k2 (ref x / π s x)) t) /\
  is_derive (fun s : R => KL (π s) ref) t
    (E[x ∼ π t] (k3 (ref x / π t x) * score x) + E[x ∼ π t] Derive (fun s : R => k3 (ref x / π s x)) t).
Proof.
  split; [exact (gradient_of_mean k1 _ is_derive_k1)|split; [exact (gradient_of_mean k2 _ is_derive_k2)|]].
  apply (is_derive_ext (fun s => E[x ∼ π s] k3 (ref x / π s x))); [apply mean_k3|].
  exact (gradient_of_mean k3 _ is_derive_k3).
Qed.

(** *** The coefficients of the score, sample by sample. The entries for rewards are what they are by definition, but for
   the frozen k₁. *)

Let r x := ref x / π t x.
Let w x := π t x / old x.

Lemma w_pos x : x ∈ X -> 0 < w x.
Proof. intros Hx. apply Rdiv_lt_0_compat; [now apply π_full|now apply old_full]. Qed.
Lemma r_pos x : x ∈ X -> 0 < r x.
Proof. intros Hx. apply Rdiv_lt_0_compat; [now apply ref_full|now apply π_full]. Qed.

Lemma is_derive_weighted (φ φ' : R -> R) x : x ∈ X -> (forall r, 0 < r -> is_derive φ r (φ' r)) ->
  is_derive (fun s : R => π s x / old x * φ (ref x / π s x)) t (w x * (φ (r x) - r x * φ' (r x)) * score x).
Proof.
  intros Hx D. eapply is_derive_eq.
  - apply (derive_mult (fun s => π s x / old x) (fun s => φ (ref x / π s x))).
    + destruct lem_score as (_ & _ & Dw & _). now apply Dw.
    + now apply (is_derive_at_sample φ φ').
  - unfold w, r. cbv beta; ring.
Qed.

Theorem thm_gradient_coefficients_loss x : x ∈ X ->
  is_derive (fun s : R => k1 (ref x / π s x)) t (1 * score x) /\
  is_derive (fun s : R => k2 (ref x / π s x)) t (k1 (r x) * score x) /\
  is_derive (fun s : R => k3 (ref x / π s x)) t ((1 - r x) * score x).
Proof.
  intros Hx. assert (P := r_pos x Hx). split; [|split]; eapply is_derive_eq.
  - apply (is_derive_at_sample k1 _ x Hx is_derive_k1).
  - fold (r x). cbv beta; field; lra.
  - apply (is_derive_at_sample k2 _ x Hx is_derive_k2).
  - fold (r x). unfold k1. cbv beta; field; lra.
  - apply (is_derive_at_sample k3 _ x Hx is_derive_k3).
  - fold (r x). cbv beta; field; lra.
Qed.

Theorem thm_gradient_coefficients_weighted_loss x : x ∈ X ->
  is_derive (fun s : R => π s x / old x * k1 (ref x / π s x)) t (w x * (k1 (r x) + 1) * score x) /\
  is_derive (fun s : R => π s x / old x * k2 (ref x / π s x)) t (w x * (k2 (r x) + k1 (r x)) * score x) /\
  is_derive (fun s : R => π s x / old x * k3 (ref x / π s x)) t (w x * k1 (r x) * score x).
Proof.
  intros Hx. assert (P := r_pos x Hx). split; [|split]; eapply is_derive_eq.
  - apply (is_derive_weighted k1 _ x Hx is_derive_k1).
  - cbv beta; field; lra.
  - apply (is_derive_weighted k2 _ x Hx is_derive_k2).
  - unfold k1. cbv beta; field; lra.
  - apply (is_derive_weighted k3 _ x Hx is_derive_k3).
  - unfold k3, k1. cbv beta; field; lra.
Qed.

Theorem thm_gradient_coefficients_detached_weight x : x ∈ X ->
  is_derive (fun s : R => w x * k1 (ref x / π s x)) t (w x * score x) /\
  is_derive (fun s : R => w x * k2 (ref x / π s x)) t (w x * k1 (r x) * score x) /\
  is_derive (fun s : R => w x * k3 (ref x / π s x)) t (w x * (1 - r x) * score x).
Proof.
  intros Hx. destruct (thm_gradient_coefficients_loss x Hx) as (D1 & D2 & D3).
  split; [|split]; eapply is_derive_eq.
  - apply derive_scal, D1.
  - ring.
  - apply derive_scal, D2.
  - ring.
  - apply derive_scal, D3.
  - ring.
Qed.

(** In the frozen reward k₁ is k₁ - ln w. *)
Theorem thm_gradient_coefficients_frozen x : x ∈ X -> k1 (r x * w x) = k1 (r x) - ln (w x).
Proof. intros Hx. unfold k1. rewrite ln_mult; [ring|now apply r_pos|now apply w_pos]. Qed.

Lemma r_w x : x ∈ X -> r x * w x = ref x / old x.
Proof.
  intros Hx. unfold r, w. assert (P := π_full t x Hx). assert (O := old_full x Hx). field; lra.
Qed.

Theorem cor_weighted_k3 x : x ∈ X ->
  is_derive (fun s : R => π s x / old x * k3 (ref x / π s x)) t (w x * k1 (r x) * score x) /\
  w x * Derive (fun s : R => k2 (ref x / π s x)) t = w x * k1 (r x) * score x.
Proof.
  intros Hx. split; [now apply thm_gradient_coefficients_weighted_loss|].
  destruct (thm_gradient_coefficients_loss x Hx) as (_ & D2 & _). apply is_derive_unique in D2. rewrite D2. ring.
Qed.

(** *** Off-policy, x ~ old *)

Lemma reweight g : E[x ∼ old] (w x * g x) = E[x ∼ π t] g x.
Proof. apply change_of_measure, full_covered, old_full. Qed.

Lemma weighted_loss_gradient (φ φ' : R -> R) : (forall r, 0 < r -> is_derive φ r (φ' r)) ->
  is_derive (fun s : R => E[x ∼ π s] φ (ref x / π s x)) t
    (E[x ∼ old] Derive (fun s : R => π s x / old x * φ (ref x / π s x)) t).
Proof.
  intros D. eapply is_derive_eq; [apply (gradient_of_mean φ φ' D)|].
  rewrite (loss_gradient φ φ' D), <- E_plus.
  rewrite <- (reweight (fun x => φ (ref x / π t x) * score x + - (ref x / π t x) * φ' (ref x / π t x) * score x)).
  apply E_ext; intros x Hx _.
  assert (U := is_derive_weighted φ φ' x Hx D). apply is_derive_unique in U. rewrite U. unfold r. ring.
Qed.

Theorem thm_off_policy_gradients_weighted_loss :
  is_derive (fun s : R => KL (π s) ref) t
    (E[x ∼ old] Derive (fun s : R => π s x / old x * k1 (ref x / π s x)) t) /\
  is_derive (fun s : R => E[x ∼ π s] k2 (ref x / π s x)) t
    (E[x ∼ old] Derive (fun s : R => π s x / old x * k2 (ref x / π s x)) t) /\
  is_derive (fun s : R => KL (π s) ref) t
    (E[x ∼ old] Derive (fun s : R => π s x / old x * k3 (ref x / π s x)) t).
Proof.
  split; [exact (weighted_loss_gradient k1 _ is_derive_k1)|].
  split; [exact (weighted_loss_gradient k2 _ is_derive_k2)|].
  apply (is_derive_ext (fun s => E[x ∼ π s] k3 (ref x / π s x))); [apply mean_k3|].
  exact (weighted_loss_gradient k3 _ is_derive_k3).
Qed.

Theorem thm_off_policy_gradients_detached_weight :
  E[x ∼ old] (w x * Derive (fun s : R => k1 (ref x / π s x)) t) = 0 /\
  is_derive (fun s : R => KL (π s) ref) t (E[x ∼ old] (w x * Derive (fun s : R => k2 (ref x / π s x)) t)) /\
  is_derive (fun s : R => KL ref (π s)) t (E[x ∼ old] (w x * Derive (fun s : R => k3 (ref x / π s x)) t)).
Proof.
  rewrite !(reweight (fun x => Derive _ t)). split; [apply thm_on_policy_gradients_loss_k1|].
  split; [apply thm_on_policy_gradients_loss_k2|apply thm_on_policy_gradients_loss_k3].
Qed.

Lemma reweight_score g : E[x ∼ old] (w x * g x * score x) = E[x ∼ π t] (g x * score x).
Proof. rewrite <- reweight. apply E_ext; intros; ring. Qed.

Theorem thm_off_policy_gradients_weighted_reward :
  is_derive (fun s : R => KL (π s) ref) t (E[x ∼ old] (w x * k1 (r x) * score x)) /\
  is_derive (fun s : R => E[x ∼ π s] k2 (ref x / π s x) - KL (π s) ref) t (E[x ∼ old] (w x * k2 (r x) * score x)) /\
  is_derive (fun s : R => KL (π s) ref - KL ref (π s)) t (E[x ∼ old] (w x * k3 (r x) * score x)).
Proof.
  rewrite !reweight_score. split; [apply thm_on_policy_gradients_reward_k1|].
  split; [apply thm_on_policy_gradients_reward_k2|apply thm_on_policy_gradients_reward_k3].
Qed.

(** The penalty ln (old/ref), which is k₁ when the sample is drawn. *)
Let c x := ln (old x / ref x).

Lemma frozen_mean s : E[x ∼ π s] c x + KL (π s) old = KL (π s) ref.
Proof.
  unfold KL. rewrite <- E_plus. apply E_ext; intros x Hx P. unfold c.
  assert (O := old_full x Hx). assert (Q := ref_full x Hx). rewrite !ln_div by trivial. ring.
Qed.

Lemma frozen_gradient :
  is_derive (fun s : R => KL (π s) ref - KL (π s) old) t (E[x ∼ old] (w x * c x * score x)).
Proof.
  rewrite reweight_score. apply (is_derive_ext (fun s => E[x ∼ π s] c x)); [|apply is_derive_E].
  intros s. rewrite <- frozen_mean. change (E[x ∼ π s] c x) with (E (π s) c). lra.
Qed.

Theorem thm_off_policy_gradients_frozen :
  is_derive (fun s : R => KL (π s) ref - KL (π s) old) t (E[x ∼ old] (w x * k1 (r x * w x) * score x)) /\
  is_derive (fun s : R => E[x ∼ π s] k2 (ref x / old x)) t (E[x ∼ old] (w x * k2 (r x * w x) * score x)) /\
  is_derive (fun s : R => E[x ∼ π s] k3 (ref x / old x)) t (E[x ∼ old] (w x * k3 (r x * w x) * score x)).
Proof.
  rewrite !reweight_score. split; [|split].
  - eapply is_derive_eq; [apply frozen_gradient|]. rewrite reweight_score. apply E_ext; intros x Hx _.
    rewrite (r_w x Hx). unfold c, k1. assert (O := old_full x Hx). assert (Q := ref_full x Hx).
    rewrite !ln_div by trivial. ring.
  - eapply is_derive_eq; [apply is_derive_E|]. apply E_ext; intros x Hx _. now rewrite (r_w x Hx).
  - eapply is_derive_eq; [apply is_derive_E|]. apply E_ext; intros x Hx _. now rewrite (r_w x Hx).
Qed.

Theorem thm_off_policy_gradients_without_weight :
  is_derive (fun s : R => - KL old (π s)) t (E[x ∼ old] Derive (fun s : R => k1 (ref x / π s x)) t) /\
  E[x ∼ old] Derive (fun s : R => k2 (ref x / π s x)) t = E[x ∼ old] (k1 (r x) * score x) /\
  E[x ∼ old] Derive (fun s : R => k3 (ref x / π s x)) t = E[x ∼ old] ((1 - r x) * score x).
Proof.
  assert (C := fun x Hx => thm_gradient_coefficients_loss x Hx). split; [|split].
  - eapply is_derive_eq.
    + apply derive_opp. apply (is_derive_sum X (fun s x => old x * - ln (π s x / old x)) t (fun x => old x * - (score x - 0))).
      intros x Hx. assert (O := old_full x Hx). apply derive_scal, derive_opp.
      apply (is_derive_ext (fun s => ln (π s x) - ln (old x))).
      * intros s. symmetry. apply ln_div; trivial. now apply π_full.
      * apply derive_minus; [now apply is_derive_ln_π|exact (is_derive_const (ln (old x)) t)].
    + rewrite <- (Rmult_1_l (sum _ _)), <- Ropp_mult_distr_l_reverse, <- sum_scal.
      apply sum_ext; intros x Hx. destruct (C x Hx) as (D & _). apply is_derive_unique in D. rewrite D. ring.
  - apply E_ext; intros x Hx _. destruct (C x Hx) as (_ & D & _). now apply is_derive_unique in D.
  - apply E_ext; intros x Hx _. destruct (C x Hx) as (_ & _ & D). now apply is_derive_unique in D.
Qed.

(** *** A frozen penalty *)

Theorem prop_frozen_penalty :
  is_derive (fun s : R => E[x ∼ π s] c x) t (E[x ∼ old] (w x * c x * score x)) /\
  is_derive (fun s : R => KL (π s) ref - KL (π s) old) t (E[x ∼ old] (w x * c x * score x)) /\
  (forall s, E[x ∼ π s] c x + KL (π s) old = KL (π s) ref).
Proof.
  split; [rewrite reweight_score; apply is_derive_E|split; [apply frozen_gradient|apply frozen_mean]].
Qed.

(** *** Straight-through: a value with the gradient of another. [sg] keeps the value at t. *)

Theorem prop_straight_through x : x ∈ X ->
  let loss s := k3 (r x) + k2 (ref x / π s x) - k2 (r x) in
  loss t = k3 (r x) /\ is_derive loss t (k1 (r x) * score x).
Proof.
  intros Hx loss. split; [unfold loss, r; ring|]. unfold loss.
  destruct (thm_gradient_coefficients_loss x Hx) as (_ & D2 & _). eapply is_derive_eq.
  - apply derive_minus; [apply derive_plus|].
    + exact (is_derive_const (k3 (r x)) t).
    + exact D2.
    + exact (is_derive_const (k2 (r x)) t).
  - unfold zero; simpl; ring.
Qed.
End Gradients.

(** ** Softmax *)

Lemma sum_one_if_equal {A} (eq_dec : forall x y : A, {x = y} + {x <> y}) (X : list A) f j :
  NoDup X -> j ∈ X -> ∑ x ∈ X, f x * (if eq_dec x j then 1 else 0) = f j.
Proof.
  induction 1 as [|a X N ND IH]; simpl; [easy|]. intros [->|Hj].
  - destruct (eq_dec j j); [|easy]. rewrite sum_zero; [ring|]. intros x Hx.
    destruct (eq_dec x j); [subst; easy|ring].
  - destruct (eq_dec a j); [subst; easy|]. rewrite IH by trivial. ring.
Qed.

Section Softmax.
Context {A : Type} {X : list A}.
Hypothesis X_not_empty : X <> [].

Definition softmax_mass (z : A -> R) (x : A) : R := exp (z x) / (∑ y ∈ X, exp (z y)).

Lemma partition_pos z : 0 < ∑ y ∈ X, exp (z y).
Proof. apply sum_pos; trivial. intros; apply exp_pos. Qed.

Lemma softmax_pos z x : 0 < softmax_mass z x.
Proof. apply Rdiv_lt_0_compat; [apply exp_pos|apply partition_pos]. Qed.

Lemma softmax_one z : ∑ x ∈ X, softmax_mass z x = 1.
Proof.
  assert (P := partition_pos z). unfold softmax_mass.
  rewrite (sum_ext _ _ (fun x => / (∑ y ∈ X, exp (z y)) * exp (z x))) by (intros; unfold Rdiv; ring).
  rewrite sum_scal. apply Rinv_l. lra.
Qed.

Definition softmax (z : A -> R) : law X :=
  Law (softmax_mass z) (fun x _ => Rlt_le _ _ (softmax_pos z x)) (softmax_one z).

Lemma softmax_full z : full_support (softmax z).
Proof. intros x _. apply softmax_pos. Qed.

(** Any differentiable parametrisation of the logits. *)
Lemma is_derive_softmax (z : R -> A -> R) t z' :
  (forall x, x ∈ X -> is_derive (fun s : R => z s x) t (z' x)) ->
  forall x, x ∈ X ->
  is_derive (fun s : R => softmax (z s) x) t (softmax (z t) x * (z' x - E[y ∼ softmax (z t)] z' y)).
Proof.
  intros D x Hx. simpl. unfold softmax_mass. assert (P := partition_pos (z t)).
  assert (DE : forall y, y ∈ X -> is_derive (fun s : R => exp (z s y)) t (z' y * exp (z t y))).
  { intros y Hy. now apply derive_exp, D. }
  eapply is_derive_eq.
  - apply derive_mult; [now apply DE|]. apply derive_inv; [|lra].
    exact (is_derive_sum X (fun s y => exp (z s y)) t (fun y => z' y * exp (z t y)) DE).
  - unfold E; simpl. unfold softmax_mass.
    rewrite (sum_ext X (fun y => exp (z t y) / (∑ y0 ∈ X, exp (z t y0)) * z' y)
      (fun y => / (∑ y0 ∈ X, exp (z t y0)) * (z' y * exp (z t y)))) by (intros; unfold Rdiv; ring).
    rewrite sum_scal. cbv beta; field; lra.
Qed.

(** *** The gradient in the logits themselves; here the points must be distinct. *)

Hypothesis eq_dec : forall x y : A, {x = y} + {x <> y}.
Hypothesis X_distinct : NoDup X.

(** The logits z with the j-th one replaced by s. *)
Definition replace_logit (z : A -> R) (j : A) (s : R) (x : A) : R := if eq_dec x j then s else z x.

Definition one_if_equal (x j : A) : R := if eq_dec x j then 1 else 0.

Lemma E_one_if_equal (q : law X) j f : j ∈ X -> E[x ∼ q] (f x * one_if_equal x j) = q j * f j.
Proof.
  intros Hj. rewrite <- (sum_one_if_equal eq_dec X (fun x => q x * f x)) by trivial.
  apply sum_ext; intros. unfold one_if_equal. ring.
Qed.

Lemma replace_logit_same z j x : replace_logit z j (z j) x = z x.
Proof. unfold replace_logit. destruct eq_dec; now subst. Qed.

Lemma softmax_replace_same z j x : softmax (replace_logit z j (z j)) x = softmax z x.
Proof.
  simpl. unfold softmax_mass. rewrite replace_logit_same. f_equal.
  apply sum_ext; intros. now rewrite replace_logit_same.
Qed.

Lemma E_replace_same z j f : E (softmax (replace_logit z j (z j))) f = E (softmax z) f.
Proof. apply sum_ext; intros. now rewrite softmax_replace_same. Qed.

(** ∂πₓ/∂zⱼ = πₓ (1[x=j] - πⱼ). *)
Lemma softmax_partial z j x : j ∈ X -> x ∈ X ->
  is_derive (fun s : R => softmax (replace_logit z j s) x) (z j) (softmax z x * (one_if_equal x j - softmax z j)).
Proof.
  intros Hj Hx. eapply is_derive_eq.
  - apply (is_derive_softmax (fun s => replace_logit z j s) (z j) (fun x => one_if_equal x j)); trivial.
    intros y _. unfold replace_logit, one_if_equal. destruct eq_dec; [exact (is_derive_id (z j))|exact (is_derive_const (z y) (z j))].
  - cbv beta. rewrite softmax_replace_same, E_replace_same. f_equal. f_equal.
    rewrite (E_ext _ _ (fun y => 1 * one_if_equal y j)) by (intros; cbv beta; ring).
    rewrite (E_one_if_equal _ j (fun _ => 1)) by trivial. ring.
Qed.

(** The score in the j-th logit, and the mean of g times the score. *)
Theorem lem_score_softmax z j : j ∈ X ->
  let s_j x := score (fun s => softmax (replace_logit z j s)) (z j) x in
  (forall x, x ∈ X -> s_j x = one_if_equal x j - softmax z j) /\
  (forall g, E[x ∼ softmax z] (g x * s_j x) = softmax z j * (g j - E (softmax z) g)).
Proof.
  intros Hj s_j.
  assert (S : forall x, x ∈ X -> s_j x = one_if_equal x j - softmax z j).
  { intros x Hx. unfold s_j, score. apply is_derive_unique. eapply is_derive_eq.
    - apply derive_ln; [now apply softmax_partial|apply softmax_pos].
    - cbv beta. assert (P := softmax_pos z x). rewrite softmax_replace_same. simpl. cbv beta; field; lra. }
  split; [easy|]. intros g.
  rewrite (E_ext _ _ (fun x => g x * one_if_equal x j - softmax z j * g x)) by (intros; rewrite S by trivial; ring).
  rewrite E_minus, E_scal, E_one_if_equal by trivial. ring.
Qed.

(** The loss gradient of k₃ in the logits: ∂KL(ref‖π)/∂zⱼ. *)
Theorem thm_on_policy_gradients_loss_k3_softmax z j ref : full_support ref -> j ∈ X ->
  let π s := softmax (replace_logit z j s) in
  is_derive (fun s : R => KL ref (π s)) (z j) (E[x ∼ softmax z] Derive (fun s : R => k3 (ref x / π s x)) (z j)) /\
  E[x ∼ softmax z] Derive (fun s : R => k3 (ref x / π s x)) (z j) = softmax z j - ref j.
Proof.
  intros F Hj π.
  assert (Dπ : forall x, x ∈ X -> ex_derive (fun s => π s x) (z j)).
  { intros x Hx. eexists. now apply softmax_partial. }
  assert (Fπ : forall s, full_support (π s)) by (intros; apply softmax_full).
  assert (Eπ : forall f, E (π (z j)) f = E (softmax z) f) by (intros; apply E_replace_same).
  assert (G := thm_on_policy_gradients_loss_k3 π ref (z j) Fπ F Dπ).
  assert (L := loss_gradient π ref (z j) Fπ F Dπ k3 _ is_derive_k3).
  rewrite Eπ in G, L. split; [exact G|]. rewrite L, Eπ.
  destruct (lem_score_softmax z j Hj) as [_ S].
  rewrite (E_ext _ _ (fun x => (1 - ref x / softmax z x) * score π (z j) x)).
  - unfold π. rewrite (S (fun x => 1 - ref x / softmax z x)), E_minus, E_const.
    assert (C := lem_mean_of_r_full (softmax z) ref (softmax_full z)). rewrite C.
    assert (P := softmax_pos z j). simpl in *. field; lra.
  - intros x Hx _. unfold π. rewrite !softmax_replace_same.
    assert (P := softmax_pos z x). assert (Q := F x Hx). simpl in *. field; lra.
Qed.
End Softmax.
