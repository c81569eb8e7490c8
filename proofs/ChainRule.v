(** * The chain rule for two steps and for sequences *)
From KL Require Export Means.

(** ** Two steps *)

(** The joint law q(x) q'(y|x). *)
Definition joint {A B} {X : list A} {Y : list B} (q : law X) (q' : A -> law Y) : law (list_prod X Y).
Proof.
  refine (Law (fun z => q (fst z) * q' (fst z) (snd z)) _ _).
  - intros [x y] H. apply in_prod_iff in H as [Hx Hy]. simpl. apply Rmult_le_pos; now apply mass_nonneg.
  - rewrite sum_prod. simpl. rewrite <- (mass_one q). apply sum_ext; intros x Hx.
    rewrite sum_scal, (mass_one (q' x)). ring.
Defined.

Section TwoSteps.
Context {A B : Type} {X : list A} {Y : list B}.
Variables (q p : law X) (q' p' : A -> law Y).

(** The tower property. *)
Lemma E_joint f : E[z ∼ joint q q'] f z = E[x ∼ q] E[y ∼ q' x] f (x, y).
Proof.
  unfold E. rewrite sum_prod. simpl. apply sum_ext; intros x Hx.
  rewrite <- sum_scal. apply sum_ext; intros; ring.
Qed.

Lemma covered_joint : joint q q' ≪ joint p p' ->
  q ≪ p /\ (forall x, x ∈ X -> 0 < q x -> q' x ≪ p' x).
Proof.
  intros H.
  assert (Z : forall x y, x ∈ X -> y ∈ Y -> p x * p' x y = 0 -> q x * q' x y = 0).
  { intros x y Hx Hy. apply (H (x, y)). now apply in_prod. }
  split.
  - intros x Hx Hp. destruct (law_point (q' x)) as (y & Hy & Hq').
    assert (S : q x * q' x y = 0) by (apply Z; trivial; rewrite Hp; ring).
    apply Rmult_integral in S. lra.
  - intros x Hx Hq y Hy Hp'. assert (S : q x * q' x y = 0) by (apply Z; trivial; rewrite Hp'; ring).
    apply Rmult_integral in S. lra.
Qed.

(** On the support of q: ln of the joint ratio = sum of the two. *)
Lemma ln_ratio_joint a a' b b' : 0 < a -> 0 < a' -> 0 < b -> 0 < b' ->
  ln (b * b' / (a * a')) = ln (b / a) + ln (b' / a').
Proof. intros. rewrite !ln_div, !ln_mult by (trivial; now apply Rmult_lt_0_compat). ring. Qed.

Theorem thm_chain_rule_two_steps : joint q q' ≪ joint p p' ->
  KL (joint q q') (joint p p') = KL q p + E[x ∼ q] KL (q' x) (p' x).
Proof.
  intros H. destruct (covered_joint H) as [H1 H2].
  unfold KL at 1. rewrite E_joint. unfold KL at 1. rewrite <- E_plus.
  apply E_ext; intros x Hx Hq. simpl.
  rewrite <- (E_const (q' x) (- ln (p x / q x))). unfold KL. rewrite <- E_plus.
  apply E_ext; intros y Hy Hq'.
  assert (Hp : 0 < p x). { destruct (mass_cases p x Hx) as [Z|]; [rewrite (H1 x Hx Z) in Hq; lra|easy]. }
  assert (Hp' : 0 < p' x y).
  { destruct (mass_cases (p' x) y Hy) as [Z|]; [rewrite (H2 x Hx Hq y Hy Z) in Hq'; lra|easy]. }
  rewrite ln_ratio_joint by trivial. ring.
Qed.
End TwoSteps.

(** ** T steps

   A sequence is a list with the LAST token first; its tail is the prefix before that token.
   A policy gives the law of the next token after each prefix. *)

Section Sequences.
Context {A : Type} {X : list A}.
Definition policy : Type := list A -> law X.
Implicit Types (q p : policy).

(** All sequences of length T. *)
Fixpoint sequences (T : nat) : list (list A) :=
  match T with
  | O => [[]]
  | S T => map (fun z => snd z :: fst z) (list_prod (sequences T) X)
  end.

(** The probability of a sequence: the product of the probabilities of its tokens. *)
Fixpoint prob q (s : list A) : R :=
  match s with
  | [] => 1
  | y :: h => prob q h * q h y
  end.

Lemma in_sequences T y h : y :: h ∈ sequences (S T) -> h ∈ sequences T /\ y ∈ X.
Proof.
  simpl. intros H. apply in_map_iff in H as ([h' y'] & E & H). simpl in E. injection E as -> ->.
  now apply in_prod_iff in H.
Qed.

Lemma length_sequences T h : h ∈ sequences T -> length h = T.
Proof.
  revert h; induction T as [|T IH]; intros h H.
  - now destruct H as [<-|[]].
  - destruct h as [|y h].
    + simpl in H. apply in_map_iff in H as (? & E & _). discriminate.
    + apply in_sequences in H as [H _]. simpl. now rewrite IH.
Qed.

Lemma prob_nonneg q T s : s ∈ sequences T -> 0 <= prob q s.
Proof.
  revert s; induction T as [|T IH]; intros s H.
  - destruct H as [<-|[]]; simpl; lra.
  - destruct s as [|y h]; simpl; [lra|]. apply in_sequences in H as [Hh Hy].
    apply Rmult_le_pos; [auto|now apply mass_nonneg].
Qed.

Lemma sum_sequences T f : ∑ s ∈ sequences (S T), f s = ∑ h ∈ sequences T, ∑ y ∈ X, f (y :: h).
Proof. simpl. rewrite sum_map, sum_prod. easy. Qed.

Lemma prob_one q T : ∑ s ∈ sequences T, prob q s = 1.
Proof.
  induction T as [|T IH]; [simpl; ring|]. rewrite sum_sequences, <- IH. apply sum_ext; intros h _.
  simpl. rewrite sum_scal, (mass_one (q h)). ring.
Qed.

(** The law of the first T tokens. *)
Definition trajectory q (T : nat) : law (sequences T) := Law (prob q) (prob_nonneg q T) (prob_one q T).

(** The tower property. *)
Lemma E_trajectory_S q T f :
  E[s ∼ trajectory q (S T)] f s = E[h ∼ trajectory q T] E[y ∼ q h] f (y :: h).
Proof.
  unfold E. rewrite sum_sequences. simpl. apply sum_ext; intros h _.
  rewrite <- sum_scal. apply sum_ext; intros; ring.
Qed.

Lemma covered_trajectory_S q p T : trajectory q (S T) ≪ trajectory p (S T) ->
  trajectory q T ≪ trajectory p T /\ (forall h, h ∈ sequences T -> 0 < prob q h -> q h ≪ p h).
Proof.
  intros H.
  assert (Z : forall h y, h ∈ sequences T -> y ∈ X -> prob p h * p h y = 0 -> prob q h * q h y = 0).
  { intros h y Hh Hy. apply (H (y :: h)). simpl. apply in_map_iff. exists (h, y). now split; [|apply in_prod]. }
  split.
  - intros h Hh Hp. destruct (law_point (q h)) as (y & Hy & Hq). simpl in *.
    assert (S : prob q h * q h y = 0) by (apply Z; trivial; rewrite Hp; ring).
    apply Rmult_integral in S. lra.
  - intros h Hh Hq y Hy Hp. assert (S : prob q h * q h y = 0) by (apply Z; trivial; rewrite Hp; ring).
    apply Rmult_integral in S. lra.
Qed.

(** If every next-token law is covered, so is the law of sequences. *)
Lemma covered_every_step q p T : (forall h, 0 < prob q h -> h ∈ sequences (length h) -> q h ≪ p h) ->
  trajectory q T ≪ trajectory p T.
Proof.
  intros H. induction T as [|T IH]; intros s Hs Z.
  - destruct Hs as [<-|[]]. simpl in Z. lra.
  - destruct s as [|y h]; [simpl in *; lra|]. assert (L := in_sequences T y h Hs). destruct L as [Hh Hy].
    simpl in *. apply Rmult_integral in Z as [Z|Z].
    + assert (Z' : prob q h = 0) by (now apply IH). rewrite Z'. ring.
    + destruct (prob_nonneg q T h Hh) as [P|P]; [|rewrite <- P; ring].
      rewrite (H h P); trivial; [ring|]. now rewrite (length_sequences T).
Qed.

(** The log-ratio of a sequence is the sum of the log-ratios of its tokens. *)
Fixpoint sum_log_ratio q p (s : list A) : R :=
  match s with
  | [] => 0
  | y :: h => sum_log_ratio q p h + ln (p h y / q h y)
  end.

Lemma ln_ratio_trajectory q p T : trajectory q T ≪ trajectory p T ->
  forall s, s ∈ sequences T -> 0 < prob q s -> ln (prob p s / prob q s) = sum_log_ratio q p s.
Proof.
  induction T as [|T IH]; intros H s Hs Hq.
  - destruct Hs as [<-|[]]. simpl. unfold Rdiv. rewrite Rinv_1, Rmult_1_r. apply ln_1.
  - destruct s as [|y h]; [simpl; unfold Rdiv; rewrite Rinv_1, Rmult_1_r; apply ln_1|].
    assert (Hp : 0 < prob p (y :: h)).
    { destruct (mass_cases (trajectory p (S T)) _ Hs) as [Z|]; [|easy]. apply (H _ Hs) in Z. simpl in *; lra. }
    destruct (covered_trajectory_S q p T H) as [H1 _]. apply in_sequences in Hs as [Hh Hy]. simpl in *.
    assert (P : forall π, 0 < prob π h * π h y -> 0 < prob π h /\ 0 < π h y).
    { intros π S. assert (N := prob_nonneg π T h Hh). assert (N' := mass_nonneg (π h) y Hy).
      split; apply Rnot_le_lt; intros L.
      - assert (Z : prob π h = 0) by lra. rewrite Z in S; lra.
      - assert (Z : π h y = 0) by lra. rewrite Z in S; lra. }
    destruct (P q Hq), (P p Hp). rewrite ln_ratio_joint by trivial. now rewrite IH.
Qed.

(** KL of two laws of sequences: sum of the means, under Q, of the divergences of the next tokens.
   [seq 0 T] is 0, 1, …, T-1: the number t of tokens already there. *)
Theorem thm_chain_rule q p T : trajectory q T ≪ trajectory p T ->
  KL (trajectory q T) (trajectory p T) = ∑ t ∈ seq 0 T, E[h ∼ trajectory q t] KL (q h) (p h).
Proof.
  induction T as [|T IH]; intros H.
  - unfold KL, E. simpl. unfold Rdiv. rewrite Rinv_1, Rmult_1_r, ln_1. ring.
  - destruct (covered_trajectory_S q p T H) as [H1 H2].
    transitivity (KL (trajectory q T) (trajectory p T) + E[h ∼ trajectory q T] KL (q h) (p h)).
    2:{ rewrite (IH H1), seq_S, sum_app. simpl. ring. }
    unfold KL at 1. rewrite E_trajectory_S. unfold KL at 1. rewrite <- E_plus.
    apply E_ext; intros h Hh Hq. simpl in *.
    rewrite <- (E_const (q h) (- ln (prob p h / prob q h))). unfold KL. rewrite <- E_plus.
    apply E_ext; intros y Hy Hq'.
    assert (Hp : 0 < prob p h).
    { destruct (mass_cases (trajectory p T) h Hh) as [Z|]; [|easy]. apply (H1 _ Hh) in Z. simpl in *; lra. }
    assert (Hp' : 0 < p h y).
    { destruct (mass_cases (p h) y Hy) as [Z|]; [rewrite (H2 h Hh Hq y Hy Z) in Hq'; lra|easy]. }
    rewrite ln_ratio_joint by trivial. ring.
Qed.

(** One sequence y ~ Q: minus the sum of its log-ratios is unbiased. *)
Theorem thm_chain_rule_unbiased q p T : trajectory q T ≪ trajectory p T ->
  E[s ∼ trajectory q T] - sum_log_ratio q p s = KL (trajectory q T) (trajectory p T).
Proof. intros H. apply E_ext; intros s Hs Hq. simpl. now rewrite (ln_ratio_trajectory q p T). Qed.

(** The means over prefixes are means over whole sequences: [skipn] drops the last tokens. *)
Theorem E_prefix q t n f : E[s ∼ trajectory q (n + t)] f (skipn n s) = E[h ∼ trajectory q t] f h.
Proof.
  induction n as [|n IH]; [easy|]. rewrite <- IH. change (S n + t)%nat with (S (n + t)). rewrite E_trajectory_S.
  apply E_ext; intros. simpl. apply E_const.
Qed.
End Sequences.
