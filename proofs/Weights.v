(** * Weights of whole responses fall: truncated weights, typical ratios *)
From KL Require Export Samples Estimators.

(** ** The Bhattacharyya coefficient of sequences is at most the product of those of the steps *)

Fixpoint product (b : nat -> R) (T : nat) : R :=
  match T with
  | O => 1
  | S T => product b T * b T
  end.

Section Weights.
Context {A : Type} {X : list A}.
Implicit Types (gen old : @policy A X).

Lemma BC_sequences gen old (b : nat -> R) T :
  (forall t h, h ∈ sequences (X := X) t -> BC (old h) (gen h) <= b t) ->
  BC (trajectory old T) (trajectory gen T) <= product b T.
Proof.
  intros H. assert (B : forall t, 0 <= b t).
  { intros t. assert (exists h, h ∈ sequences (X := X) t) as [h Hh].
    { destruct (law_point (trajectory old t)) as (h & Hh & _). now exists h. }
    apply Rle_trans with (2 := H t h Hh). apply BC_nonneg. }
  induction T as [|T IH].
  - unfold BC. simpl. rewrite sqrt_1. lra.
  - unfold BC. rewrite sum_sequences. cbn [product].
    apply Rle_trans with (∑ h ∈ sequences (X := X) T, b T * (sqrt (prob gen h) * sqrt (prob old h))).
    + apply sum_le; intros h Hh.
      rewrite (sum_ext X _ (fun y => sqrt (prob gen h) * sqrt (prob old h) * (sqrt (gen h y) * sqrt (old h y)))).
      * rewrite sum_scal, Rmult_comm. apply Rmult_le_compat_r; [apply Rmult_le_pos; apply sqrt_pos|now apply H].
      * intros y Hy. simpl. rewrite !sqrt_mult_alt by now apply (prob_nonneg _ T). ring.
    + rewrite sum_scal, Rmult_comm. apply Rmult_le_compat_r; [apply B|exact IH].
Qed.

(** E min(M, C) ≤ √C BC and P(M ≥ C) ≤ BC/√C, for the ratio M of any two laws. *)
Lemma truncated_mean {B} {Y : list B} (g o : law Y) C : 0 < C ->
  E[y ∼ g] Rmin (o y / g y) C <= sqrt C * BC o g.
Proof.
  intros HC. unfold BC. rewrite <- sum_scal. apply sum_le; intros y Hy. destruct (mass_cases g y Hy) as [->|Hg].
  { rewrite sqrt_0. lra. }
  assert (O := mass_nonneg o y Hy). assert (M : 0 <= o y / g y) by (apply Rmult_le_pos; [easy|left; now apply Rinv_0_lt_compat]).
  apply Rle_trans with (g y * sqrt (C * (o y / g y))).
  - apply Rmult_le_compat_l; [lra|]. rewrite <- (sqrt_pow2 (Rmin (o y / g y) C)) by (apply Rmin_glb; lra).
    apply sqrt_le_1_alt. simpl. rewrite Rmult_1_r.
    assert (N : 0 <= Rmin (o y / g y) C) by (apply Rmin_glb; lra).
    apply Rmult_le_compat; trivial; [apply Rmin_r|apply Rmin_l].
  - right. rewrite sqrt_mult, sqrt_div_alt by lra. rewrite <- (sqrt_sqrt (g y)) at 1 by lra.
    field. assert (0 < sqrt (g y)) by (now apply sqrt_lt_R0). lra.
Qed.

Lemma large_ratio {B} {Y : list B} (g o : law Y) C : 0 < C ->
  E[y ∼ g] (if Rle_dec C (o y / g y) then 1 else 0) <= 1 / sqrt C * BC o g.
Proof.
  intros HC. assert (S := sqrt_lt_R0 C HC).
  assert (T := truncated_mean g o C HC). apply Rle_trans with (1 / C * (sqrt C * BC o g)).
  - apply Rle_trans with (1 / C * (E[y ∼ g] Rmin (o y / g y) C)); [|apply Rmult_le_compat_l; trivial; left; apply Rdiv_lt_0_compat; lra].
    rewrite <- E_scal. apply E_le; intros y Hy Hg. assert (P : 0 < 1 / C) by (apply Rdiv_lt_0_compat; lra).
    assert (M : 0 <= o y / g y) by (apply Rmult_le_pos; [now apply mass_nonneg|left; now apply Rinv_0_lt_compat]).
    destruct Rle_dec as [L|L].
    + rewrite Rmin_right by trivial. right. field. lra.
    + apply Rmult_le_pos; [lra|]. apply Rmin_glb; lra.
  - right. rewrite <- (sqrt_sqrt C) at 1 by lra. field. lra.
Qed.

Theorem thm_truncated_weights gen old b T C : 0 < C ->
  (forall t h, h ∈ sequences (X := X) t -> BC (old h) (gen h) <= b t) ->
  E[s ∼ trajectory gen T] Rmin (prob old s / prob gen s) C <= sqrt C * product b T /\
  E[s ∼ trajectory gen T] (if Rle_dec C (prob old s / prob gen s) then 1 else 0) <= 1 / sqrt C * product b T.
Proof.
  intros HC H. assert (B := BC_sequences gen old b T H). assert (S := sqrt_lt_R0 C HC). split.
  - apply Rle_trans with (1 := truncated_mean (trajectory gen T) (trajectory old T) C HC).
    apply Rmult_le_compat_l; [lra|exact B].
  - apply Rle_trans with (1 := large_ratio (trajectory gen T) (trajectory old T) C HC).
    apply Rmult_le_compat_l; [left; apply Rdiv_lt_0_compat; lra|exact B].
Qed.

(** Above: Markov, for the weight of the whole response. *)
Theorem thm_truncated_weights_markov gen old T C : 0 < C ->
  E[s ∼ trajectory gen T] (if Rle_dec C (prob old s / prob gen s) then 1 else 0) <= 1 / C.
Proof.
  intros HC. apply Rle_trans with (E[s ∼ trajectory gen T] (1 / C * (prob old s / prob gen s))).
  - apply E_le; intros s Hs P. simpl in P. assert (P' : 0 < 1 / C) by (apply Rdiv_lt_0_compat; lra).
    assert (M : 0 <= prob old s / prob gen s).
    { apply Rmult_le_pos; [now apply (prob_nonneg old T)|left; now apply Rinv_0_lt_compat]. }
    destruct Rle_dec as [L|L]; [|now apply Rmult_le_pos; [lra|]].
    apply Rmult_le_reg_l with C; trivial. replace (C * (1 / C * (prob old s / prob gen s))) with (prob old s / prob gen s) by (field; simpl; lra). lra.
  - rewrite E_scal. rewrite <- (Rmult_1_r (1 / C)) at 2. apply Rmult_le_compat_l; [left; apply Rdiv_lt_0_compat; lra|].
    exact (E_r_le_1 (trajectory gen T) (trajectory old T)).
Qed.

(** Not at once: for C ≥ 1 the truncated mean is at least 1 - TV. *)
Theorem thm_truncated_weights_not_at_once gen old T C : 1 <= C ->
  1 - TV (trajectory old T) (trajectory gen T) <= E[s ∼ trajectory gen T] Rmin (prob old s / prob gen s) C.
Proof.
  intros HC. set (g := trajectory gen T). set (o := trajectory old T).
  assert (S : ∑ s ∈ sequences (X := X) T, (o s + g s - Rabs (o s - g s)) = 2 * (1 - TV o g)).
  { rewrite (sum_ext _ _ (fun s => o s + (g s + -1 * Rabs (o s - g s)))) by (intros; ring).
    rewrite !sum_plus, sum_scal. rewrite (mass_one o), (mass_one g). unfold TV. field. }
  cut ((∑ s ∈ sequences (X := X) T, (o s + g s - Rabs (o s - g s))) <= 2 * (E[s ∼ g] Rmin (o s / g s) C)).
  { rewrite S. intros L. change (E[s ∼ g] Rmin (prob old s / prob gen s) C) with (E[s ∼ g] Rmin (o s / g s) C). lra. }
  unfold E. rewrite <- sum_scal. apply sum_le; intros s Hs.
  assert (O := mass_nonneg o s Hs). destruct (mass_cases g s Hs) as [Z|P].
  - rewrite Z, Rabs_pos_eq by lra. lra.
  - replace (o s + g s - Rabs (o s - g s)) with (2 * Rmin (o s) (g s)).
    + apply Rmult_le_compat_l; [lra|]. replace (g s * Rmin (o s / g s) C) with (Rmin (o s) (g s * C)).
      * unfold Rmin. destruct (Rle_dec (o s) (g s)); destruct (Rle_dec (o s) (g s * C)); nra.
      * unfold Rmin. assert (D : g s * (o s / g s) = o s) by (field; lra).
        destruct (Rle_dec (o s) (g s * C)) as [L|L]; destruct (Rle_dec (o s / g s) C) as [L'|L']; trivial.
        -- now rewrite D.
        -- exfalso. apply L'. apply Rmult_le_reg_l with (g s); trivial. now rewrite D.
        -- exfalso. apply L. rewrite <- D. apply Rmult_le_compat_l; lra.
    + unfold Rmin, Rabs. destruct (Rle_dec (o s) (g s)); destruct (Rcase_abs (o s - g s)); lra.
Qed.

(** Independent tokens: the ratio of a sequence is rarely above δ. *)
Theorem thm_typical_reading_tail (q p : law X) T δ : 0 < δ ->
  E[s ∼ sample q T] (if Rle_dec δ (sample p T s / sample q T s) then 1 else 0) <= 1 / sqrt δ * BC p q ^ T.
Proof.
  intros Hδ. assert (P : forall n, product (fun _ => BC p q) n = BC p q ^ n).
  { induction n as [|n IH]; simpl; [easy|]. rewrite IH. ring. }
  rewrite <- P. apply (thm_truncated_weights (fun _ => q) (fun _ => p) (fun _ => BC p q) T δ Hδ). intros; lra.
Qed.
End Weights.
