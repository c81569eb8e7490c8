(** * The unbiased completion of a sum over a set of tokens: its derivative does not estimate the derivative *)
From Coq Require Import Bool.
From KL Require Export Vocabulary Gradients.
From Coquelicot Require Import Coquelicot.

Section Gradient.
Context {A : Type} {X : list A}.
Variables (π : R -> law X) (ref : law X) (a : A -> bool) (t : R).
Hypothesis π_full : forall s, full_support (π s).
Hypothesis ref_full : full_support ref.
Hypothesis π_derive : forall x, x ∈ X -> ex_derive (fun s : R => π s x) t.

Let inside (x : A) : R := if a x then 1 else 0.
Let outside (x : A) : R := if a x then 0 else 1.
Let k (s : R) (x : A) : R := k3 (ref x / π s x).
Let s_ (x : A) : R := score π t x.

(** The derivative of the mean of f k₃ for a fixed function f of the token. *)
Lemma is_derive_weighted_k3 (f : A -> R) : is_derive (fun s : R => E[x ∼ π s] (f x * k s x)) t
  (E[x ∼ π t] (f x * (k t x + (1 - ref x / π t x)) * s_ x)).
Proof.
  eapply is_derive_eq.
  - apply (is_derive_sum X (fun s x => π s x * (f x * k s x)) t
      (fun x => π t x * s_ x * (f x * k t x) + π t x * (f x * (- (ref x / π t x) * (1 - / (ref x / π t x)) * s_ x)))).
    intros x Hx. apply (derive_mult (fun s => π s x) (fun s => f x * k s x)); [now apply is_derive_π|].
    apply derive_scal. now apply (is_derive_at_sample π ref t π_full ref_full π_derive k3 (fun r => 1 - / r) x Hx is_derive_k3).
  - apply sum_ext; intros x Hx. assert (P := π_full t x Hx). assert (Q := ref_full x Hx). cbv beta. field. lra.
Qed.

Lemma is_derive_KL : is_derive (fun s : R => KL (π s) ref) t (E[x ∼ π t] ((k t x + (1 - ref x / π t x)) * s_ x)).
Proof.
  apply is_derive_ext with (fun s : R => E[x ∼ π s] (1 * k s x)).
  - intros s. rewrite <- (mean_k (π s) ref); trivial. apply E_ext; intros. unfold k. ring.
  - eapply is_derive_eq; [apply (is_derive_weighted_k3 (fun _ => 1))|]. apply E_ext; intros; ring.
Qed.

(** The derivative of the estimate at a fixed token. *)
Lemma is_derive_estimate (c : R -> R) x : x ∈ X -> ex_derive c t ->
  is_derive (fun s : R => Z_ (π s) ref a (c s) x) t
    (E[y ∼ π t] (inside y * (k t y + (1 - ref y / π t y)) * s_ y) + outside x * ((1 - ref x / π t x) * s_ x)
      - (Derive c t * (outside x - E[y ∼ π t] outside y) + c t * - (E[y ∼ π t] (outside y * s_ y)))).
Proof.
  intros Hx C.
  apply is_derive_ext with (fun s : R => E[y ∼ π s] (inside y * k s y) + outside x * k s x - c s * (outside x - E[y ∼ π s] outside y)).
  { intros s. unfold Z_, S_A. do 3 f_equal. apply E_ext; intros y _ _. unfold outside. now destruct (a y). }
  apply derive_minus; [apply derive_plus|apply (derive_mult c (fun s => outside x - E[y ∼ π s] outside y)); [now apply Derive_correct|]].
  - apply is_derive_weighted_k3.
  - apply derive_scal. eapply is_derive_eq.
    + now apply (is_derive_at_sample π ref t π_full ref_full π_derive k3 (fun r => 1 - / r) x Hx is_derive_k3).
    + assert (P := π_full t x Hx). assert (Q := ref_full x Hx). unfold s_. cbv beta. field. lra.
  - eapply is_derive_eq; [apply (derive_minus (fun _ => outside x) (fun s => E[y ∼ π s] outside y)); [exact (is_derive_const (outside x) t)|now apply is_derive_E]|].
    apply Rminus_0_l.
Qed.

(** The mean derivative of the estimate misses those of the other tokens' laws, whether c is differentiated or not. *)
Theorem thm_topk_completion_gradient (c : R -> R) : ex_derive c t ->
  is_derive (fun s : R => KL (π s) ref) t (E[x ∼ π t] Derive (fun s : R => Z_ (π s) ref a (c s) x) t
    + E[x ∼ π t] (outside x * (k3 (ref x / π t x) - c t) * score π t x)).
Proof.
  intros C. eapply is_derive_eq; [apply is_derive_KL|].
  set (I := E[y ∼ π t] (inside y * (k t y + (1 - ref y / π t y)) * s_ y)).
  set (O := E[y ∼ π t] (outside y * s_ y)). set (o := E[y ∼ π t] outside y).
  rewrite (E_ext (π t) (fun x => Derive (fun s : R => Z_ (π s) ref a (c s) x) t)
    (fun x => (I + c t * O + Derive c t * o) + (outside x * ((1 - ref x / π t x) * s_ x) - Derive c t * outside x))).
  2: { intros x Hx _. rewrite (is_derive_unique _ _ _ (is_derive_estimate c x Hx C)). fold I O o. ring. }
  rewrite E_plus, E_const, E_minus, E_scal. fold o.
  rewrite (E_ext (π t) (fun x => outside x * (k3 (ref x / π t x) - c t) * score π t x)
    (fun x => outside x * k t x * s_ x - c t * (outside x * s_ x))) by (intros; unfold k, s_; ring).
  rewrite E_minus, E_scal. fold O.
  rewrite (E_ext (π t) (fun x => (k t x + (1 - ref x / π t x)) * s_ x)
    (fun x => inside x * (k t x + (1 - ref x / π t x)) * s_ x + (outside x * ((1 - ref x / π t x) * s_ x) + outside x * k t x * s_ x))).
  2: { intros x _ _. unfold inside, outside. destruct (a x); ring. }
  rewrite !E_plus. fold I. change (E (π t) outside) with o. ring.
Qed.

(** The mean of Σ over the set of q k₁ s, plus k₁ s of the token if it is outside, is the gradient. *)
Theorem thm_topk_completion_score :
  let G x := E[j ∼ π t] (inside j * k1 (ref j / π t j) * score π t j) + outside x * k1 (ref x / π t x) * score π t x in
  is_derive (fun s : R => KL (π s) ref) t (E (π t) G).
Proof.
  intros G. eapply is_derive_eq; [apply thm_on_policy_gradients_reward_k1; trivial|].
  unfold G. rewrite E_plus, E_const, <- E_plus. apply E_ext; intros x _ _. unfold inside, outside. destruct (a x); ring.
Qed.
End Gradient.

(** In the logits of a softmax it is the gradient if and only if k₃ = c outside the set. *)
Section Logits.
Context {A : Type} {X : list A}.
Hypothesis X_not_empty : X <> [].
Hypothesis eq_dec : forall x y : A, {x = y} + {x <> y}.
Hypothesis X_distinct : NoDup X.
Variables (ref : law X) (a : A -> bool) (z : A -> R) (c : A -> R -> R) (c0 : R).
Hypothesis ref_full : full_support ref.
Let π (j : A) (s : R) : law X := softmax X_not_empty (replace_logit eq_dec z j s).

(** The number c, as a function of each logit; one that is not differentiated is constant. *)
Hypothesis c_derive : forall j, j ∈ X -> ex_derive (c j) (z j) /\ c j (z j) = c0.

Theorem thm_topk_completion_logits : 0 < mass_of (softmax X_not_empty z) a ->
  (forall j, j ∈ X ->
    is_derive (fun s : R => KL (π j s) ref) (z j) (E[x ∼ softmax X_not_empty z] Derive (fun s : R => Z_ (π j s) ref a (c j s) x) (z j)))
  <-> (forall x, x ∈ X -> a x = false -> k3 (ref x / softmax X_not_empty z x) = c0).
Proof.
  intros M. set (q := softmax X_not_empty z) in *.
  set (g := fun x => (if a x then 0 else 1) * (k3 (ref x / q x) - c0)).
  assert (B : forall j, j ∈ X ->
    is_derive (fun s : R => KL (π j s) ref) (z j) (E[x ∼ q] Derive (fun s : R => Z_ (π j s) ref a (c j s) x) (z j) + q j * (g j - E q g))).
  { intros j Hj. destruct (c_derive j Hj) as [D C].
    assert (Dπ : forall x, x ∈ X -> ex_derive (fun s : R => π j s x) (z j)).
    { intros x Hx. eexists. now apply softmax_partial. }
    assert (T := thm_topk_completion_gradient (π j) ref a (z j) (fun s => softmax_full X_not_empty _) ref_full Dπ (c j) D).
    destruct (lem_score_softmax X_not_empty eq_dec X_distinct z j Hj) as [_ S]. fold q in S. rewrite <- S.
    assert (Q : forall x, π j (z j) x = q x) by (intros; apply softmax_replace_same).
    eapply is_derive_eq; [exact T|]. f_equal; apply sum_ext; intros x Hx; rewrite Q; [easy|]. unfold g. now rewrite C. }
  assert (U : forall j, j ∈ X ->
    (is_derive (fun s : R => KL (π j s) ref) (z j) (E[x ∼ q] Derive (fun s : R => Z_ (π j s) ref a (c j s) x) (z j)) <-> g j = E q g)).
  { intros j Hj. assert (P : 0 < q j) by now apply softmax_full. specialize (B j Hj). split; intros H.
    - apply is_derive_unique in B. apply is_derive_unique in H. rewrite H in B. nra.
    - rewrite H, Rminus_eq_0, Rmult_0_r, Rplus_0_r in B. exact B. }
  split; intros H.
  - (* a token of the set has g = 0, so the mean of g is 0 *)
    assert (Z : E q g = 0).
    { destruct (Exists_dec (fun x => a x = true) X (fun x => bool_dec (a x) true)) as [I|I].
      - apply Exists_exists in I. destruct I as (x & Hx & Ax). rewrite <- (proj1 (U x Hx) (H x Hx)). unfold g. rewrite Ax. ring.
      - exfalso. assert (N : mass_of q a = 0); [|lra]. transitivity (E q (fun _ => 0)); [|apply E_const].
        apply E_ext; intros x Hx _. destruct (a x) eqn:Ax; [|easy]. exfalso. apply I, Exists_exists. now exists x. }
    intros x Hx Ax. assert (G := proj1 (U x Hx) (H x Hx)). rewrite Z in G. unfold g in G. rewrite Ax in G. lra.
  - assert (G : forall x, x ∈ X -> g x = 0).
    { intros x Hx. unfold g. destruct (a x) eqn:Ax; [ring|]. rewrite (H x Hx Ax). ring. }
    intros j Hj. apply U; trivial. rewrite G by easy. symmetry. transitivity (E q (fun _ => 0)); [|apply E_const].
    apply E_ext; intros; now apply G.
Qed.
End Logits.
