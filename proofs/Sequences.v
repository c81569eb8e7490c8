(** * Sequences: token and sequence level, variances, control variates chosen from the prefix *)
From KL Require Export ChainRule Variance Structure.

Section TokenSums.
Context {A : Type} {X : list A}.
Implicit Types (q p : @policy A X) (f : list A -> A -> R).

(** The sum of f over the tokens of a sequence: f sees the prefix and the token. *)
Fixpoint tokens f (s : list A) : R :=
  match s with
  | [] => 0
  | y :: h => tokens f h + f h y
  end.

(** Its mean: the sum over t of the mean of f after t tokens. *)
Lemma E_tokens q f T :
  E (trajectory q T) (tokens f) = ∑ t ∈ seq 0 T, E[h ∼ trajectory q t] E[y ∼ q h] f h y.
Proof.
  induction T as [|T IH]; [unfold E; simpl; ring|].
  rewrite seq_S, sum_app. simpl. rewrite <- IH, Rplus_0_r, <- E_plus.
  transitivity (E[s ∼ trajectory q (S T)] tokens f s); [easy|].
  rewrite E_trajectory_S. apply E_ext; intros h _ _. simpl. now rewrite E_plus, E_const.
Qed.

Lemma tokens_ext f g T s : s ∈ sequences (X := X) T ->
  (forall h y, h ∈ sequences (X := X) (length h) -> y ∈ X -> f h y = g h y) -> tokens f s = tokens g s.
Proof.
  intros Hs H. revert s Hs. induction T as [|T IH]; intros s Hs.
  - now destruct Hs as [<-|[]].
  - destruct s as [|y h]; [easy|]. apply in_sequences in Hs as [Hh Hy]. simpl. rewrite (IH h Hh), H; trivial.
    now rewrite (length_sequences (X := X) T).
Qed.

Lemma sum_log_ratio_tokens q p s : sum_log_ratio q p s = tokens (fun h y => ln (p h y / q h y)) s.
Proof. induction s as [|y h IH]; simpl; [easy|]. now rewrite IH. Qed.

(** ** The sum of exact steps *)

Theorem cor_exact_steps q p T : trajectory q T ≪ trajectory p T ->
  E[s ∼ trajectory q T] tokens (fun h _ => KL (q h) (p h)) s = KL (trajectory q T) (trajectory p T) /\
  (forall s, s ∈ sequences (X := X) T -> 0 < prob q s -> 0 <= tokens (fun h _ => KL (q h) (p h)) s).
Proof.
  intros H. split.
  - transitivity (E (trajectory q T) (tokens (fun h _ => KL (q h) (p h)))); [easy|].
    rewrite E_tokens, (thm_chain_rule q p T H). apply sum_ext; intros t _. apply E_ext; intros h _ _. apply E_const.
  - induction T as [|T IH]; intros s Hs P.
    + destruct Hs as [<-|[]]. simpl; lra.
    + destruct s as [|y h]; [simpl; lra|]. destruct (covered_trajectory_S q p T H) as [H1 H2].
      apply in_sequences in Hs as [Hh Hy]. simpl in *.
      assert (Ph : 0 < prob q h).
      { destruct (prob_nonneg q T h Hh) as [|Z]; [easy|]. rewrite <- Z in P. lra. }
      assert (N := KL_nonneg _ _ (H2 h Hh Ph)). specialize (IH H1 h Hh Ph). lra.
Qed.

(** ** Coefficients chosen from the prefix *)

Theorem thm_predictable_controls q p (c : list A -> R) T : trajectory q T ≪ trajectory p T ->
  (forall h, 0 < prob q h -> h ∈ sequences (X := X) (length h) -> p h ≪ q h) ->
  E[s ∼ trajectory q T] tokens (fun h y => k1 (p h y / q h y) + c h * (p h y / q h y - 1)) s
  = KL (trajectory q T) (trajectory p T).
Proof.
  intros H H'. transitivity (E (trajectory q T) (tokens (fun h y => k1 (p h y / q h y) + c h * (p h y / q h y - 1)))); [easy|].
  rewrite E_tokens, (thm_chain_rule q p T H). apply sum_ext; intros t _. apply E_ext; intros h Hh Ph.
  rewrite E_plus, E_scal, lem_mean_of_r_minus_1.
  assert (Z : p h ≪ q h) by (apply H'; trivial; now rewrite (length_sequences (X := X) t)).
  apply P_zero_covered in Z as ->. unfold KL, k1. ring.
Qed.

(** The ratio of a whole sequence. *)
Definition ratio q p (s : list A) : R := prob p s / prob q s.

(** The choices 1 and R_{t-1}: token-level and sequence-level k₃. *)
Theorem thm_predictable_controls_choices q p : (forall h, full_support (q h)) -> (forall h, full_support (p h)) ->
  forall T s, s ∈ sequences (X := X) T ->
  tokens (fun h y => k3 (p h y / q h y)) s = tokens (fun h y => k1 (p h y / q h y) + 1 * (p h y / q h y - 1)) s /\
  k3 (ratio q p s) = tokens (fun h y => k1 (p h y / q h y) + ratio q p h * (p h y / q h y - 1)) s.
Proof.
  intros Fq Fp.
  assert (P : forall π : @policy A X, (forall h, full_support (π h)) -> forall T s, s ∈ sequences (X := X) T -> 0 < prob π s).
  { intros π F. induction T as [|T IH]; intros s Hs; [destruct Hs as [<-|[]]; simpl; lra|].
    destruct s as [|y h]; [simpl; lra|]. apply in_sequences in Hs as [Hh Hy]. simpl.
    apply Rmult_lt_0_compat; [now apply IH|now apply F]. }
  intros T s Hs. split.
  - apply (tokens_ext _ _ T s Hs). intros h y _ _. unfold k3, k1. ring.
  - revert s Hs. induction T as [|T IH]; intros s Hs.
    + destruct Hs as [<-|[]]. unfold ratio, k3; simpl. replace (1 / 1) with 1 by field. rewrite ln_1. ring.
    + destruct s as [|y h]; [unfold ratio, k3; simpl; replace (1 / 1) with 1 by field; rewrite ln_1; ring|].
      apply in_sequences in Hs as [Hh Hy]. simpl. rewrite <- (IH h Hh).
      assert (Pq := P q Fq T h Hh). assert (Pp := P p Fp T h Hh). assert (Q := Fq h y Hy). assert (Q' := Fp h y Hy).
      unfold ratio, k3, k1. simpl. rewrite ln_ratio_joint by trivial.
      replace (prob p h * p h y / (prob q h * q h y)) with (prob p h / prob q h * (p h y / q h y)) by (field; lra). ring.
Qed.

(** ** k₃ summed over tokens *)

Theorem prop_token_level_k3 q p T : trajectory q T ≪ trajectory p T ->
  (forall h, 0 < prob q h -> h ∈ sequences (X := X) (length h) -> p h ≪ q h) ->
  E[s ∼ trajectory q T] tokens (fun h y => k3 (p h y / q h y)) s = KL (trajectory q T) (trajectory p T) /\
  (forall s, s ∈ sequences (X := X) T -> 0 < prob q s -> 0 <= tokens (fun h y => k3 (p h y / q h y)) s).
Proof.
  intros H H'. split.
  - rewrite <- (thm_predictable_controls q p (fun _ => 1) T H H'). apply E_ext; intros s Hs _.
    apply (tokens_ext _ _ T s Hs). intros. unfold k3, k1. ring.
  - clear H'. induction T as [|T IH]; intros s Hs P.
    + destruct Hs as [<-|[]]. simpl; lra.
    + destruct s as [|y h]; [simpl; lra|]. destruct (covered_trajectory_S q p T H) as [H1 H2].
      apply in_sequences in Hs as [Hh Hy]. simpl in *.
      assert (N := prob_nonneg q T h Hh). assert (N' := mass_nonneg (q h) y Hy).
      assert (Ph : 0 < prob q h) by (destruct N as [|Z]; [easy|rewrite <- Z in P; lra]).
      assert (Py : 0 < q h y) by (destruct N' as [|Z]; [easy|rewrite <- Z in P; lra]).
      assert (K := k3_nonneg _ (ratio_pos (q h) (p h) y (H2 h Hh Ph) Hy Py)). specialize (IH H1 h Hh Ph). lra.
Qed.

(** ** What per-token weights estimate: samples from [old], the policy q, the reference p *)

Theorem prop_token_weights (old q p : @policy A X) T : (forall h, full_support (old h)) -> (forall h, full_support (q h)) ->
  (forall h, full_support (p h)) ->
  (forall k, k = k1 \/ k = k3 ->
    E[s ∼ trajectory old T] tokens (fun h y => q h y / old h y * k (p h y / q h y)) s
    = ∑ t ∈ seq 0 T, E[h ∼ trajectory old t] KL (q h) (p h) /\
    E[s ∼ trajectory old T] tokens (fun h y => prob q (y :: h) / prob old (y :: h) * k (p h y / q h y)) s
    = KL (trajectory q T) (trajectory p T)).
Proof.
  intros Fo Fq Fp k Hk.
  assert (K : forall h, E[y ∼ q h] k (p h y / q h y) = KL (q h) (p h)).
  { intros h. destruct Hk as [->| ->]; [easy|]. rewrite (E_ext _ _ (fun y => Divergences.k 1 (p h y / q h y))) by (intros; apply k3_k).
    apply prop_mean_of_k3_unbiased; now apply full_covered. }
  assert (W : forall h g, E[y ∼ old h] (q h y / old h y * g y) = E[y ∼ q h] g y).
  { intros h g. apply change_of_measure. now apply full_covered. }
  assert (P : forall (π : @policy A X), (forall h, full_support (π h)) -> forall t, full_support (trajectory π t)).
  { intros π F t. induction t as [|t IH]; intros s Hs; [destruct Hs as [<-|[]]; simpl; lra|].
    destruct s as [|y h]; [simpl; lra|]. apply in_sequences in Hs as [Hh Hy]. simpl.
    apply Rmult_lt_0_compat; [now apply (IH h)|now apply F]. }
  split.
  - etransitivity; [exact (E_tokens old (fun h y => q h y / old h y * k (p h y / q h y)) T)|].
    apply sum_ext; intros t _. apply E_ext; intros h _ _. rewrite W. apply K.
  - etransitivity; [exact (E_tokens old (fun h y => prob q (y :: h) / prob old (y :: h) * k (p h y / q h y)) T)|].
    rewrite (thm_chain_rule q p T) by (now apply full_covered, P).
    apply sum_ext; intros t _.
    rewrite <- (change_of_measure (trajectory old t) (trajectory q t) (fun h => KL (q h) (p h))) by (now apply full_covered, P).
    apply E_ext; intros h Hh _. rewrite <- K, <- W, <- E_scal. apply E_ext; intros y Hy _. simpl.
    assert (O := P old Fo t h Hh). assert (O' := Fo h y Hy). simpl in O. field. lra.
Qed.
End TokenSums.

(** ** Variances of sums over two independent parts *)

Section Independent.
Context {A : Type} {X : list A}.
Variables (q p : law X).
Hypotheses (Hqp : q ≪ p) (Hpq : p ≪ q).

(** Independent tokens: every token has the law q under Q and p under P. *)
Let Q (T : nat) : law (sequences (X := X) T) := trajectory (fun _ => q) T.
Let P (T : nat) : law (sequences (X := X) T) := trajectory (fun _ => p) T.

Lemma E_Q_S T f : E (Q (S T)) f = E[h ∼ Q T] E[y ∼ q] f (y :: h).
Proof. apply (E_trajectory_S (fun _ => q)). Qed.

Lemma E_split T (f : list A -> R) (g : A -> R) : E[h ∼ Q T] E[y ∼ q] (f h + g y) = E (Q T) f + E q g.
Proof.
  rewrite (E_ext (Q T) (fun h => E[y ∼ q] (f h + g y)) (fun h => f h + E q g)).
  - now rewrite E_plus, E_const.
  - intros h _ _. now rewrite E_plus, E_const.
Qed.

Lemma Var_split T (f : list A -> R) (g : A -> R) (F : list A -> R) :
  (forall y h, F (y :: h) = f h + g y) -> Var (Q (S T)) F = Var (Q T) f + Var q g.
Proof.
  intros H. unfold Var. rewrite !Cov_E, !E_Q_S.
  rewrite (E_ext (Q T) (fun h => E[y ∼ q] F (y :: h)) (fun h => E[y ∼ q] (f h + g y)))
    by (intros; apply E_ext; intros; apply H).
  rewrite E_split.
  rewrite (E_ext (Q T) (fun h => E[y ∼ q] (F (y :: h) * F (y :: h)))
    (fun h => f h * f h + (2 * E q g * f h + E[y ∼ q] (g y * g y)))).
  - rewrite !E_plus, E_scal, E_const.
    change (E[x ∼ q] g x) with (E q g). change (E[h ∼ Q T] f h) with (E (Q T) f). ring.
  - intros h _ _. rewrite (E_ext q _ (fun y => f h * f h + (2 * f h * g y + g y * g y))) by (intros; rewrite H; ring).
    rewrite !E_plus, E_const, (E_scal q (2 * f h) g). ring.
Qed.

Lemma Var_tokens T (g : A -> R) : Var (Q T) (tokens (fun _ y => g y)) = INR T * Var q g.
Proof.
  induction T as [|T IH].
  - unfold Var, Cov, E. simpl. ring.
  - rewrite (Var_split T (tokens (fun _ y => g y)) g) by easy. rewrite IH, S_INR. ring.
Qed.

Lemma Var_k3_token : Var[y ∼ q] k3 (p y / q y) = Var[y ∼ q] k1 (p y / q y) - 2 * J q p + chi2 p q.
Proof.
  rewrite (Var_ext q _ (fun y => k 1 (p y / q y))) by (intros; apply k3_k).
  rewrite thm_optimal_lambda_parabola by trivial. ring.
Qed.

(** Where a sequence has mass, ln R is the sum over its tokens. *)
Lemma k1_ratio T s : s ∈ sequences (X := X) T -> 0 < Q T s ->
  k1 (P T s / Q T s) = tokens (fun _ y => k1 (p y / q y)) s.
Proof.
  intros Hs Ps. unfold k1.
  transitivity (- sum_log_ratio (fun _ => q) (fun _ => p) s).
  - f_equal. apply (ln_ratio_trajectory (fun _ => q) (fun _ => p) T); trivial.
    apply covered_every_step. intros. apply Hqp.
  - rewrite sum_log_ratio_tokens. clear. induction s as [|y h IH]; simpl; [ring|]. rewrite <- IH. ring.
Qed.

Theorem thm_iid_sequences_k1 T : Var[s ∼ Q T] k1 (P T s / Q T s) = INR T * (Var[y ∼ q] k1 (p y / q y)).
Proof.
  rewrite (Var_ext (Q T) _ (tokens (fun _ y => k1 (p y / q y)))) by (apply k1_ratio).
  apply Var_tokens.
Qed.

Theorem thm_iid_sequences_token_level T :
  Var[s ∼ Q T] tokens (fun _ y => k3 (p y / q y)) s = INR T * (Var[y ∼ q] k1 (p y / q y) - 2 * J q p + chi2 p q).
Proof. rewrite <- Var_k3_token. apply Var_tokens. Qed.

Lemma KL_iid (a b : law X) T : a ≪ b -> KL (trajectory (fun _ => a) T) (trajectory (fun _ => b) T) = INR T * KL a b.
Proof.
  intros H. rewrite thm_chain_rule by (apply covered_every_step; intros; apply H).
  clear. induction T as [|T IH]; [simpl; ring|]. rewrite seq_S, sum_app, IH, S_INR. simpl. rewrite E_const. ring.
Qed.

Lemma chi2_iid T : 1 + chi2 (P T) (Q T) = (1 + chi2 p q) ^ T.
Proof.
  assert (M : forall n, E[s ∼ P n] (P n s / Q n s) = (1 + chi2 p q) ^ n).
  { induction n as [|n IH]; [unfold E; simpl; field|].
    transitivity (E[h ∼ P n] E[y ∼ p] (P n h / Q n h * (p y / q y))).
    - unfold P at 1. rewrite (E_trajectory_S (fun _ => p)). apply E_ext; intros h Hh Ph. apply E_ext; intros y Hy Py.
      simpl. unfold Rdiv. rewrite Rinv_mult. ring.
    - rewrite (E_ext (P n) _ (fun h => (1 + chi2 p q) * (P n h / Q n h))).
      + rewrite E_scal, IH. simpl. ring.
      + intros h _ _. rewrite E_scal, chi2_second_moment by trivial. ring. }
  rewrite <- M. symmetry. apply chi2_second_moment. apply covered_every_step. intros; apply Hpq.
Qed.

Theorem thm_iid_sequences_sequence_level T :
  Var[s ∼ Q T] k3 (P T s / Q T s) =
  (1 + chi2 p q) ^ T - 1 + INR T * (Var[y ∼ q] k1 (p y / q y)) - 2 * INR T * J q p.
Proof.
  assert (C : Q T ≪ P T) by (apply covered_every_step; intros; apply Hqp).
  assert (C' : P T ≪ Q T) by (apply covered_every_step; intros; apply Hpq).
  rewrite (Var_ext (Q T) _ (fun s => k 1 (P T s / Q T s))) by (intros; apply k3_k).
  rewrite thm_optimal_lambda_parabola by trivial. rewrite thm_iid_sequences_k1, <- chi2_iid.
  unfold J, Q, P. rewrite !KL_iid by trivial. ring.
Qed.

Theorem thm_iid_sequences_k2 T :
  E[s ∼ Q T] k2 (P T s / Q T s) = / 2 * (INR T * (Var[y ∼ q] k1 (p y / q y)) + INR T ^ 2 * KL q p ^ 2) /\
  E[s ∼ Q T] tokens (fun _ y => k2 (p y / q y)) s - KL (Q T) (P T) = INR T * (E[y ∼ q] k2 (p y / q y) - KL q p).
Proof.
  assert (C : Q T ≪ P T) by (apply covered_every_step; intros; apply Hqp). split.
  - rewrite prop_mean_of_k2 by trivial. unfold Q, P. rewrite KL_iid by trivial.
    rewrite <- (thm_iid_sequences_k1 T). unfold k1.
    assert (O : forall (f : list A -> R), Var[s ∼ Q T] - f s = Var (Q T) f).
    { intros f. unfold Var. rewrite !Cov_E, E_opp. rewrite (E_ext (Q T) (fun s => - f s * - f s) (fun s => f s * f s)) by (intros; ring). ring. }
    rewrite (O (fun s => ln (P T s / Q T s))). unfold Q, P. field.
  - unfold Q, P. rewrite KL_iid by trivial.
    transitivity (E (trajectory (fun _ => q) T) (tokens (fun _ y => k2 (p y / q y))) - INR T * KL q p); [easy|].
    rewrite E_tokens.
    assert (S : forall n, ∑ t ∈ seq 0 n, E[h ∼ trajectory (fun _ => q) t] E[y ∼ q] k2 (p y / q y) = INR n * (E[y ∼ q] k2 (p y / q y))).
    { induction n as [|n IH]; [simpl; ring|]. rewrite seq_S, sum_app, IH, S_INR. simpl. rewrite E_const. ring. }
    rewrite S. ring.
Qed.
End Independent.

(** ** The reverse divergence forces the variance of R up *)

Theorem thm_sequence_variance_bound {A} {X : list A} (q p : law X) : p ≪ q ->
  Var[x ∼ q] (p x / q x) >= exp (KL p q) - 1.
Proof.
  intros H.
  assert (V : Var[x ∼ q] (p x / q x) = chi2 p q).
  { rewrite <- (Var_r q p H). unfold Var. rewrite !Cov_E, E_minus, E_const.
    rewrite (E_ext q (fun x => (p x / q x - 1) * (p x / q x - 1)) (fun x => p x / q x * (p x / q x) + (-2 * (p x / q x) + 1))) by (intros; ring).
    rewrite !E_plus, E_scal, E_const. ring. }
  rewrite V. assert (C := chi2_nonneg q p). set (c := 1 + chi2 p q).
  cut (KL p q <= ln c).
  { intros L. apply Rle_ge. cut (exp (KL p q) <= c); [unfold c; lra|].
    rewrite <- (exp_ln c) by (unfold c; lra). destruct L as [L|L]; [left; now apply exp_increasing|right; now rewrite L]. }
  destruct (prop_sampling_identities q p) as (_ & _ & I3 & _). rewrite (I3 H).
  (* Jensen: ln r lies below the tangent at c, and E_p r = c *)
  apply Rle_trans with (E[x ∼ p] (ln c + (p x / q x - c) / c)).
  - apply E_le; intros x Hx Hp. apply ln_tangent; [unfold c; lra|].
    apply Rdiv_lt_0_compat; trivial. now apply (mass_pos p q).
  - right. rewrite E_plus, E_const. rewrite (E_ext p _ (fun x => / c * (p x / q x) - 1))
      by (intros x _ _; generalize (p x / q x); intros; field; unfold c; lra).
    rewrite E_minus, E_scal, E_const, chi2_second_moment by trivial. fold c. field. unfold c; lra.
Qed.
