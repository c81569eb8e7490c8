(** * Gradients for sequences: what token losses miss

   [π s] is a policy that depends on one real parameter s; samples come from [π t]. *)
From KL Require Export Sequences Gradients.
From Coquelicot Require Import Coquelicot.

Section TokenGradients.
Context {A : Type} {X : list A}.
Variables (π : R -> @policy A X) (ref : @policy A X) (t : R).
Hypothesis π_full : forall s h, full_support (π s h).
Hypothesis ref_full : forall h, full_support (ref h).
Hypothesis π_derive : forall h x, x ∈ X -> ex_derive (fun s : R => π s h x) t.

(** The score of a token after a prefix. *)
Definition σ (h : list A) (y : A) : R := score (fun s => π s h) t y.

Lemma full_trajectory (p : @policy A X) : (forall h, full_support (p h)) -> forall n, full_support (trajectory p n).
Proof.
  intros F n. induction n as [|n IH]; intros s Hs; [destruct Hs as [<-|[]]; simpl; lra|].
  destruct s as [|y h]; [simpl; lra|]. apply in_sequences in Hs as [Hh Hy]. simpl.
  apply Rmult_lt_0_compat; [now apply (IH h)|now apply F].
Qed.

(** The probability of a sequence has the score Σ sₜ. *)
Lemma is_derive_prob n s : s ∈ sequences (X := X) n -> is_derive (fun u : R => prob (π u) s) t (prob (π t) s * tokens σ s).
Proof.
  revert s. induction n as [|n IH]; intros s Hs.
  - destruct Hs as [<-|[]]. simpl. eapply is_derive_eq; [exact (is_derive_const 1 t)|unfold zero; simpl; ring].
  - destruct s as [|y h]; [simpl; eapply is_derive_eq; [exact (is_derive_const 1 t)|unfold zero; simpl; ring]|].
    apply in_sequences in Hs as [Hh Hy]. simpl. eapply is_derive_eq.
    + apply derive_mult; [now apply IH|].
      exact (is_derive_π (fun u => π u h) t (fun u => π_full u h) (π_derive h) y Hy).
    + unfold σ. cbv beta. ring.
Qed.

Let Q (n : nat) (u : R) : law (sequences (X := X) n) := trajectory (π u) n.
Let P (n : nat) : law (sequences (X := X) n) := trajectory ref n.

Lemma Q_full n u : full_support (Q n u).
Proof. apply full_trajectory. intros; apply π_full. Qed.
Lemma P_full n : full_support (P n).
Proof. apply full_trajectory, ref_full. Qed.
Lemma Q_derive n s : s ∈ sequences (X := X) n -> ex_derive (fun u : R => Q n u s) t.
Proof. intros Hs. eexists. now apply (is_derive_prob n). Qed.

Lemma score_trajectory n s : s ∈ sequences (X := X) n -> score (Q n) t s = tokens σ s.
Proof.
  intros Hs. assert (D := is_derive_π (Q n) t (Q_full n) (Q_derive n) s Hs). assert (D' := is_derive_prob n s Hs).
  apply is_derive_unique in D. apply is_derive_unique in D'. simpl in D. rewrite D in D'.
  assert (F := Q_full n t s Hs). simpl in F. apply Rmult_eq_reg_l with (prob (π t) s); lra.
Qed.

(** k₁ of the sequence is the sum over its tokens. *)
Lemma k1_sequence n u s : s ∈ sequences (X := X) n ->
  k1 (P n s / Q n u s) = tokens (fun h y => k1 (ref h y / π u h y)) s.
Proof.
  intros Hs. unfold k1. transitivity (- sum_log_ratio (π u) ref s).
  - f_equal. apply (ln_ratio_trajectory (π u) ref n); trivial; [apply full_covered, P_full|now apply (Q_full n u)].
  - rewrite sum_log_ratio_tokens. clear. induction s as [|y h IH]; simpl; [ring|]. rewrite <- IH. ring.
Qed.

(** 1, with S the score of the response. *)
Theorem thm_missing_term_reward T :
  is_derive (fun u : R => KL (trajectory (π u) T) (trajectory ref T)) t
    (E[s ∼ trajectory (π t) T] (tokens σ s * tokens (fun h y => k1 (ref h y / π t h y)) s)).
Proof.
  assert (G := gradient_KL (Q T) (P T) t (Q_full T) (P_full T) (Q_derive T)).
  eapply is_derive_eq; [exact G|]. apply E_ext; intros s Hs _.
  rewrite (k1_sequence T t s Hs), (score_trajectory T s Hs). ring.
Qed.

(** 4: at sequence level. *)
Theorem thm_missing_term_sequence_level T :
  is_derive (fun u : R => KL (trajectory (π u) T) (trajectory ref T)) t
    (E[s ∼ trajectory (π t) T] Derive (fun u : R => k2 (trajectory ref T s / trajectory (π u) T s)) t) /\
  is_derive (fun u : R => KL (trajectory ref T) (trajectory (π u) T)) t
    (E[s ∼ trajectory (π t) T] Derive (fun u : R => k3 (trajectory ref T s / trajectory (π u) T s)) t).
Proof.
  split.
  - exact (thm_on_policy_gradients_loss_k2 (Q T) (P T) t (Q_full T) (P_full T) (Q_derive T)).
  - exact (thm_on_policy_gradients_loss_k3 (Q T) (P T) t (Q_full T) (P_full T) (Q_derive T)).
Qed.

(** Token losses: the derivative of the k of each token, at a fixed sequence. *)
Definition token_gradient (k : R -> R) (h : list A) (y : A) : R := Derive (fun u : R => k (ref h y / π u h y)) t.

Lemma E_token_gradient k T : E (trajectory (π t) T) (tokens (token_gradient k)) =
  ∑ n ∈ seq 0 T, E[h ∼ trajectory (π t) n] E[y ∼ π t h] token_gradient k h y.
Proof. apply E_tokens. Qed.

(** 3: k₃ has the mean of the ∇K'ₜ, with the prefixes from π; k₁ has zero. *)
Theorem thm_missing_term_token_k3 T :
  E (trajectory (π t) T) (tokens (token_gradient k3)) =
  E[s ∼ trajectory (π t) T] tokens (fun h _ => Derive (fun u : R => KL (ref h) (π u h)) t) s.
Proof.
  transitivity (E (trajectory (π t) T) (tokens (fun h _ => Derive (fun u : R => KL (ref h) (π u h)) t))); [|easy].
  rewrite !E_tokens. apply sum_ext; intros n _. apply E_ext; intros h _ _. rewrite E_const. symmetry.
  apply is_derive_unique.
  exact (thm_on_policy_gradients_loss_k3 (fun u => π u h) (ref h) t (fun u => π_full u h) (ref_full h) (π_derive h)).
Qed.

Theorem thm_missing_term_token_k1 T : E (trajectory (π t) T) (tokens (token_gradient k1)) = 0.
Proof.
  rewrite E_token_gradient. apply sum_zero; intros n _.
  transitivity (E (trajectory (π t) n) (fun _ => 0)); [|apply E_const]. apply E_ext; intros h _ _.
  exact (thm_on_policy_gradients_loss_k1 (fun u => π u h) (ref h) t (fun u => π_full u h) (ref_full h) (π_derive h)).
Qed.

(** 2: k₂ has the mean of k₁ₜ sₜ, which is that of the ∇Kₜ with the prefix held fixed. *)
Theorem thm_missing_term_token_k2 T :
  E (trajectory (π t) T) (tokens (token_gradient k2)) =
    E[s ∼ trajectory (π t) T] tokens (fun h y => k1 (ref h y / π t h y) * σ h y) s /\
  E (trajectory (π t) T) (tokens (token_gradient k2)) =
    E[s ∼ trajectory (π t) T] tokens (fun h _ => Derive (fun u : R => KL (π u h) (ref h)) t) s.
Proof.
  assert (G : forall h, Derive (fun u : R => KL (π u h) (ref h)) t = E[y ∼ π t h] token_gradient k2 h y).
  { intros h. apply is_derive_unique.
    exact (thm_on_policy_gradients_loss_k2 (fun u => π u h) (ref h) t (fun u => π_full u h) (ref_full h) (π_derive h)). }
  assert (G' : forall h, Derive (fun u : R => KL (π u h) (ref h)) t = E[y ∼ π t h] (k1 (ref h y / π t h y) * σ h y)).
  { intros h. apply is_derive_unique.
    exact (gradient_KL (fun u => π u h) (ref h) t (fun u => π_full u h) (ref_full h) (π_derive h)). }
  split.
  - transitivity (E (trajectory (π t) T) (tokens (fun h y => k1 (ref h y / π t h y) * σ h y))); [|easy].
    rewrite !E_tokens. apply sum_ext; intros n _. apply E_ext; intros h _ _. now rewrite <- G, G'.
  - transitivity (E (trajectory (π t) T) (tokens (fun h _ => Derive (fun u : R => KL (π u h) (ref h)) t))); [|easy].
    rewrite !E_tokens. apply sum_ext; intros n _. apply E_ext; intros h _ _. now rewrite <- G, E_const.
Qed.

(** The KL to go: what the next n tokens will add after the prefix h. *)
Fixpoint to_go (n : nat) (h : list A) : R :=
  match n with
  | O => 0
  | S n => KL (π t h) (ref h) + E[y ∼ π t h] to_go n (y :: h)
  end.

(** Mean over n more tokens of a sum over these tokens. *)
Fixpoint ahead (f : list A -> A -> R) (n : nat) (h : list A) : R :=
  match n with
  | O => 0
  | S n => E[y ∼ π t h] (f h y + ahead f n (y :: h))
  end.

Lemma E_ahead f n m :
  E[h ∼ trajectory (π t) m] (tokens f h + ahead f n h) = E (trajectory (π t) (n + m)) (tokens f).
Proof.
  revert m. induction n as [|n IH]; intros m; simpl ahead.
  - apply E_ext; intros; ring.
  - replace (S n + m)%nat with (n + S m)%nat by (rewrite PeanoNat.Nat.add_succ_r; easy). rewrite <- IH.
    rewrite E_trajectory_S. apply E_ext; intros h _ _.
    rewrite (E_ext (π t h) (fun y => tokens f (y :: h) + ahead f n (y :: h))
      (fun y => tokens f h + (f h y + ahead f n (y :: h)))) by (intros; simpl; ring).
    now rewrite (E_plus (π t h) (fun _ => tokens f h)), E_const.
Qed.

Lemma E_tokens_ahead f n : E (trajectory (π t) n) (tokens f) = ahead f n [].
Proof.
  rewrite <- (PeanoNat.Nat.add_0_r n). rewrite <- E_ahead. rewrite PeanoNat.Nat.add_0_r. unfold E. simpl. ring.
Qed.

Lemma E_score_zero h : E (π t h) (σ h) = 0.
Proof. exact (E_score (fun u => π u h) t (fun u => π_full u h) (π_derive h)). Qed.

(** Mean, over n more tokens, of the product of two such sums. *)
Fixpoint ahead2 (f g : list A -> A -> R) (n : nat) (h : list A) : R :=
  match n with
  | O => 0
  | S n => E[y ∼ π t h] (f h y * g h y + f h y * ahead g n (y :: h) + g h y * ahead f n (y :: h) + ahead2 f g n (y :: h))
  end.

Lemma E_ahead2 f g n m :
  E[h ∼ trajectory (π t) m] (tokens f h * tokens g h + tokens f h * ahead g n h + tokens g h * ahead f n h + ahead2 f g n h)
  = E[s ∼ trajectory (π t) (n + m)] (tokens f s * tokens g s).
Proof.
  revert m. induction n as [|n IH]; intros m; cbn [ahead ahead2].
  - apply E_ext; intros; ring.
  - replace (S n + m)%nat with (n + S m)%nat by (rewrite PeanoNat.Nat.add_succ_r; easy). rewrite <- IH.
    rewrite E_trajectory_S. apply E_ext; intros h _ _. cbn [tokens].
    set (F := tokens f h). set (G := tokens g h).
    transitivity (E[y ∼ π t h] (F * G + (F * (g h y + ahead g n (y :: h)) + (G * (f h y + ahead f n (y :: h))
      + (f h y * g h y + f h y * ahead g n (y :: h) + g h y * ahead f n (y :: h) + ahead2 f g n (y :: h)))))).
    + rewrite (E_plus _ (fun _ => F * G)), E_const.
      rewrite (E_plus _ (fun y => F * (g h y + ahead g n (y :: h)))), E_scal.
      rewrite (E_plus _ (fun y => G * (f h y + ahead f n (y :: h)))), E_scal. ring.
    + apply E_ext; intros; ring.
Qed.

Lemma ahead_score n h : ahead σ n h = 0.
Proof.
  revert h. induction n as [|n IH]; intros h; simpl; [easy|].
  transitivity (E (π t h) (σ h)); [|apply E_score_zero]. apply E_ext; intros. rewrite IH. ring.
Qed.

Lemma ahead_k1 n h : ahead (fun h y => k1 (ref h y / π t h y)) n h = to_go n h.
Proof.
  revert h. induction n as [|n IH]; intros h; simpl; [easy|].
  rewrite (E_ext _ _ (fun y => k1 (ref h y / π t h y) + to_go n (y :: h))) by (intros; now rewrite IH).
  now rewrite E_plus.
Qed.

(** The missing term: each token's score times the KL to go behind it. *)
Theorem thm_missing_term T :
  is_derive (fun u : R => KL (trajectory (π u) T) (trajectory ref T)) t
    (E[s ∼ trajectory (π t) T] tokens (fun h y => k1 (ref h y / π t h y) * σ h y) s +
     E[s ∼ trajectory (π t) T] tokens (fun h y => σ h y * to_go (T - S (length h)) (y :: h)) s).
Proof.
  eapply is_derive_eq; [apply thm_missing_term_reward|].
  set (kk := fun h y => k1 (ref h y / π t h y)).
  set (f1 := fun h y => kk h y * σ h y). set (f2 := fun h y => σ h y * to_go (T - S (length h)) (y :: h)).
  change (E[s ∼ trajectory (π t) T] (tokens σ s * tokens kk s) =
    E (trajectory (π t) T) (tokens f1) + E (trajectory (π t) T) (tokens f2)).
  rewrite !E_tokens_ahead.
  assert (M : ahead2 σ kk T [] = E[s ∼ trajectory (π t) T] (tokens σ s * tokens kk s)).
  { assert (H := E_ahead2 σ kk T 0). rewrite PeanoNat.Nat.add_0_r in H. rewrite <- H. unfold E. simpl. ring. }
  rewrite <- M. clear M.
  assert (G : forall n h, (n + length h = T)%nat -> ahead2 σ kk n h = ahead f1 n h + ahead f2 n h).
  { induction n as [|n IH]; intros h L; cbn [ahead ahead2]; [ring|].
    rewrite <- E_plus. apply E_ext; intros y _ _. rewrite ahead_score, IH by (simpl; rewrite PeanoNat.Nat.add_succ_r; easy).
    assert (N : (T - S (length h) = n)%nat).
    { rewrite <- L. simpl. rewrite PeanoNat.Nat.add_sub. easy. }
    assert (K : ahead kk n (y :: h) = to_go n (y :: h)) by apply ahead_k1.
    rewrite K. unfold f1, f2. rewrite N. ring. }
  apply G. simpl. apply PeanoNat.Nat.add_0_r.
Qed.

(** E Σₜ sₜ Σᵤ k₁ᵤ = E Σᵤ k₁ᵤ Σ_{t≤u} sₜ: later scores have mean zero given the prefix. *)
Lemma later_scores_vanish (g : list A -> A -> R) n :
  E[s ∼ trajectory (π t) n] (tokens σ s * tokens g s) =
  E (trajectory (π t) n) (tokens (fun h y => g h y * tokens σ (y :: h))).
Proof.
  induction n as [|n IH]; [unfold E; simpl; ring|].
  transitivity (E[s ∼ trajectory (π t) (S n)] tokens (fun h y => g h y * tokens σ (y :: h)) s); [|easy].
  rewrite !E_trajectory_S. cbn [tokens].
  transitivity (E[h ∼ trajectory (π t) n] (tokens σ h * tokens g h + E[y ∼ π t h] (g h y * (tokens σ h + σ h y)))).
  - apply E_ext; intros h _ _.
    rewrite (E_ext (π t h) _ (fun y => tokens σ h * tokens g h + (tokens g h * σ h y + g h y * (tokens σ h + σ h y))))
      by (intros; ring).
    rewrite (E_plus _ (fun _ => tokens σ h * tokens g h)), E_const.
    rewrite (E_plus _ (fun y => tokens g h * σ h y)), (E_scal _ _ (σ h)), E_score_zero. ring.
  - rewrite E_plus, IH. rewrite <- E_plus. apply E_ext; intros h _ _.
    rewrite (E_plus _ (fun _ => tokens (fun h y => g h y * (tokens σ h + σ h y)) h)), E_const. easy.
Qed.

Theorem thm_missing_term_reward_to_go T :
  is_derive (fun u : R => KL (trajectory (π u) T) (trajectory ref T)) t
    (E[s ∼ trajectory (π t) T] tokens (fun h y => k1 (ref h y / π t h y) * tokens σ (y :: h)) s).
Proof. eapply is_derive_eq; [apply thm_missing_term_reward|]. apply later_scores_vanish. Qed.

(** 5: off-policy, with the weights of whole prefixes. *)
Theorem thm_missing_term_off_policy (old : @policy A X) T : (forall h, full_support (old h)) ->
  is_derive (fun u : R => KL (trajectory (π u) T) (trajectory ref T)) t
    (E[s ∼ trajectory old T] tokens (fun h y =>
      prob (π t) (y :: h) / prob old (y :: h) * k1 (ref h y / π t h y) * tokens σ (y :: h)) s).
Proof.
  intros Fo. eapply is_derive_eq; [apply thm_missing_term_reward|]. rewrite later_scores_vanish.
  set (g := fun h y => k1 (ref h y / π t h y) * tokens σ (y :: h)).
  transitivity (E (trajectory old T) (tokens (fun h y => prob (π t) (y :: h) / prob old (y :: h) * g h y))).
  - rewrite !E_tokens. apply sum_ext; intros n _. 
    assert (C := change_of_measure (trajectory old (S n)) (trajectory (π t) (S n))
      (fun s => match s with [] => 0 | y :: h => g h y end) ltac:(now apply full_covered, full_trajectory)).
    rewrite !E_trajectory_S in C. symmetry. exact C.
  - apply E_ext; intros s Hs _. apply (tokens_ext _ _ T s Hs). intros. unfold g. ring.
Qed.

(** *** Frozen prefixes: the prefixes stay those of [old] *)

Lemma is_derive_frozen (old : @policy A X) T (f : R -> list A -> R) (f' : list A -> R) :
  (forall h, is_derive (fun u : R => f u h) t (f' h)) ->
  is_derive (fun u : R => ∑ n ∈ seq 0 T, E (trajectory old n) (f u)) t (∑ n ∈ seq 0 T, E (trajectory old n) f').
Proof.
  intros D. apply (is_derive_sum (seq 0 T) (fun u n => E (trajectory old n) (f u)) t (fun n => E (trajectory old n) f')).
  intros n _. apply (is_derive_sum (sequences n) (fun u h => prob old h * f u h) t (fun h => prob old h * f' h)).
  intros h _. apply derive_scal, D.
Qed.

Theorem prop_frozen_prefixes (old : @policy A X) T : (forall h, full_support (old h)) ->
  is_derive (fun u : R => ∑ n ∈ seq 0 T, E[h ∼ trajectory old n] KL (π u h) (ref h)) t
    (E[s ∼ trajectory old T] tokens (fun h y => Derive (fun u : R => π u h y / old h y * k3 (ref h y / π u h y)) t) s) /\
  is_derive (fun u : R => ∑ n ∈ seq 0 T, E[h ∼ trajectory old n] KL (ref h) (π u h)) t
    (E[s ∼ trajectory old T] tokens (fun h y => π t h y / old h y * Derive (fun u : R => k3 (ref h y / π u h y)) t) s).
Proof.
  intros Fo. split.
  - set (G h y := Derive (fun u : R => π u h y / old h y * k3 (ref h y / π u h y)) t).
    apply (is_derive_eq _ _ (∑ n ∈ seq 0 T, E[h ∼ trajectory old n] E[y ∼ old h] G h y)).
    + apply (is_derive_frozen old T (fun u h => KL (π u h) (ref h)) (fun h => E[y ∼ old h] G h y)). intros h.
      destruct (thm_off_policy_gradients_weighted_loss (fun u => π u h) (ref h) (old h) t (fun u => π_full u h)
        (ref_full h) (Fo h) (π_derive h)) as (_ & _ & D). exact D.
    + symmetry. exact (E_tokens old G T).
  - set (G h y := π t h y / old h y * Derive (fun u : R => k3 (ref h y / π u h y)) t).
    apply (is_derive_eq _ _ (∑ n ∈ seq 0 T, E[h ∼ trajectory old n] E[y ∼ old h] G h y)).
    + apply (is_derive_frozen old T (fun u h => KL (ref h) (π u h)) (fun h => E[y ∼ old h] G h y)). intros h.
      destruct (thm_off_policy_gradients_detached_weight (fun u => π u h) (ref h) (old h) t (fun u => π_full u h)
        (ref_full h) (Fo h) (π_derive h)) as (_ & _ & D). exact D.
    + symmetry. exact (E_tokens old G T).
Qed.

(** The coefficient of each token's score is w k₁. *)
Theorem prop_frozen_prefixes_coefficient (old : @policy A X) h y : y ∈ X ->
  Derive (fun u : R => π u h y / old h y * k3 (ref h y / π u h y)) t
  = π t h y / old h y * k1 (ref h y / π t h y) * σ h y.
Proof.
  intros Hy. apply is_derive_unique.
  destruct (thm_gradient_coefficients_weighted_loss (fun u => π u h) (ref h) (old h) t (fun u => π_full u h)
    (ref_full h) (π_derive h) y Hy) as (_ & _ & D). exact D.
Qed.

(** Where π = old the first function is the divergence of whole responses. *)
Theorem prop_frozen_prefixes_at_old T :
  ∑ n ∈ seq 0 T, E[h ∼ trajectory (π t) n] KL (π t h) (ref h) = KL (trajectory (π t) T) (trajectory ref T).
Proof. symmetry. apply thm_chain_rule, full_covered, P_full. Qed.
End TokenGradients.
