(** * Samples of n independent draws: groups, leave-one-out, free tests *)
From KL Require Export Sequences.

Section Samples.
Context {A : Type} {X : list A}.
Implicit Types (q p : law X) (f g : A -> R).

(** The law of n independent draws from q, as a list; and the sum of f over the list. *)
Definition sample q (n : nat) : law (sequences (X := X) n) := trajectory (fun _ => q) n.
Definition total f (s : list A) : R := tokens (fun _ y => f y) s.

Lemma E_sample_S q n F : E (sample q (S n)) F = E[h ∼ sample q n] E[y ∼ q] F (y :: h).
Proof. apply (E_trajectory_S (fun _ => q)). Qed.

Lemma E_total q f n : E (sample q n) (total f) = INR n * E q f.
Proof.
  induction n as [|n IH]; [unfold E, sample, total; simpl; ring|].
  rewrite E_sample_S. transitivity (E[h ∼ sample q n] (total f h + E q f)).
  - apply E_ext; intros h _ _. rewrite <- (E_const q (total f h)) at 1. symmetry. rewrite <- (E_plus q (fun _ => total f h) f). easy.
  - rewrite E_plus, E_const, S_INR. change (E[h ∼ sample q n] total f h) with (E (sample q n) (total f)). rewrite IH. ring.
Qed.

(** The mean of a product of two sums. *)
Lemma E_total_total q f g n :
  E[s ∼ sample q n] (total f s * total g s) = INR n * (E[x ∼ q] (f x * g x)) + INR n * (INR n - 1) * E q f * E q g.
Proof.
  induction n as [|n IH]; [unfold E, sample, total; simpl; ring|].
  rewrite E_sample_S.
  transitivity (E[h ∼ sample q n] (total f h * total g h + (E q g * total f h + (E q f * total g h + E[x ∼ q] (f x * g x))))).
  - apply E_ext; intros h _ _.
    transitivity (E[y ∼ q] (total f h * total g h + (total f h * g y + (total g h * f y + f y * g y)))).
    + apply E_ext; intros. unfold total. simpl. ring.
    + rewrite !E_plus, E_const, (E_scal q _ g), (E_scal q _ f). ring.
  - rewrite !E_plus, E_const, IH, (E_scal _ _ (total f)), (E_scal _ _ (total g)), !E_total, S_INR. ring.
Qed.

Lemma total_ext f g s : (forall y, f y = g y) -> total f s = total g s.
Proof. intros H. induction s as [|y h IH]; unfold total in *; simpl; [easy|]. now rewrite IH, H. Qed.

(** *** Subtracting the mean of the group; sc is the score, with mean zero *)

Theorem prop_group_mean q (c sc : A -> R) n : E q sc = 0 -> (2 <= n)%nat ->
  E[s ∼ sample q n] (total (fun x => (c x - total c s / INR n) * sc x) s / INR n) = (1 - 1 / INR n) * (E[x ∼ q] (c x * sc x)) /\
  E[s ∼ sample q n] (total (fun x => (c x - (total c s - c x) / (INR n - 1)) * sc x) s / INR n) = E[x ∼ q] (c x * sc x).
Proof.
  intros Z Hn. assert (N : 2 <= INR n) by (now apply (le_INR 2)).
  assert (D : forall s u w, total (fun x => (u * c x - w) * sc x) s = u * total (fun x => c x * sc x) s - w * total sc s).
  { intros s u w. induction s as [|y h IH]; unfold total in *; simpl; [ring|]. rewrite IH. ring. }
  assert (T := E_total_total q c sc n). rewrite Z in T. assert (T1 := E_total q (fun x => c x * sc x) n). split.
  - transitivity (E[s ∼ sample q n] (1 / INR n * total (fun x => c x * sc x) s - 1 / (INR n * INR n) * (total c s * total sc s))).
    + apply E_ext; intros s _ _.
      transitivity (total (fun x => (1 * c x - total c s / INR n) * sc x) s / INR n).
      * f_equal. apply total_ext. intros. ring.
      * rewrite D. field. lra.
    + rewrite E_minus, (E_scal _ _ (total (fun x => c x * sc x))), T1, E_scal, T. field. lra.
  - transitivity (E[s ∼ sample q n] (1 / (INR n - 1) * total (fun x => c x * sc x) s
      - 1 / (INR n * (INR n - 1)) * (total c s * total sc s))).
    + apply E_ext; intros s _ _.
      transitivity (total (fun x => ((1 + 1 / (INR n - 1)) * c x - total c s / (INR n - 1)) * sc x) s / INR n).
      * f_equal. apply total_ext. intros. field. lra.
      * rewrite D. field. lra.
    + rewrite E_minus, (E_scal _ _ (total (fun x => c x * sc x))), T1, E_scal, T. field. lra.
Qed.

(** *** Leave-one-out: each value takes its coefficient from the others *)

Fixpoint leave_one_out (Y Z : A -> R) (λ : list A -> R) (before s : list A) : R :=
  match s with
  | [] => 0
  | y :: s => Y y + λ (before ++ s) * Z y + leave_one_out Y Z λ (before ++ [y]) s
  end.

Lemma E_swap {B} {W : list B} q (l : law W) (F : A -> B -> R) : E[x ∼ q] E[w ∼ l] F x w = E[w ∼ l] E[x ∼ q] F x w.
Proof.
  unfold E. transitivity (∑ x ∈ X, ∑ w ∈ W, q x * (l w * F x w)).
  - apply sum_ext; intros. now rewrite sum_scal.
  - rewrite sum_swap. apply sum_ext; intros w _. rewrite <- sum_scal. apply sum_ext; intros; ring.
Qed.

Lemma leave_one_out_mean q Y Z λ n before : E q Z = 0 ->
  E[s ∼ sample q n] leave_one_out Y Z λ before s = INR n * E q Y.
Proof.
  intros HZ. revert before. induction n as [|n IH]; intros before; [unfold E, sample, total; simpl; ring|].
  rewrite E_sample_S. cbn [leave_one_out].
  transitivity (E[h ∼ sample q n] (E q Y + E[y ∼ q] leave_one_out Y Z λ (before ++ [y]) h)).
  - apply E_ext; intros h _ _. rewrite !E_plus, (E_scal q (λ (before ++ h)) Z), HZ. ring.
  - rewrite E_plus, E_const, <- E_swap.
    rewrite (E_ext q (fun y => E[h ∼ sample q n] leave_one_out Y Z λ (before ++ [y]) h) (fun _ => INR n * E q Y))
      by (intros; apply IH).
    rewrite E_const, S_INR. ring.
Qed.

Theorem thm_estimated_lambda_leave_one_out q p (λ : list A -> R) n : q ≪ p -> p ≪ q -> (0 < n)%nat ->
  E[s ∼ sample q n] (leave_one_out (fun x => - ln (p x / q x)) (fun x => p x / q x - 1) λ [] s / INR n) = KL q p.
Proof.
  intros H H' Hn. assert (N : 0 < INR n) by (now apply lt_0_INR).
  assert (Z : E[x ∼ q] (p x / q x - 1) = 0).
  { rewrite lem_mean_of_r_minus_1. apply P_zero_covered in H' as ->. ring. }
  assert (L := leave_one_out_mean q (fun x => - ln (p x / q x)) (fun x => p x / q x - 1) λ n [] Z).
  set (loo := leave_one_out (fun x => - ln (p x / q x)) (fun x => p x / q x - 1) λ []) in *.
  change (E (sample q n) loo = INR n * KL q p) in L.
  rewrite (E_ext _ _ (fun s => / INR n * loo s)) by (intros; field; lra).
  rewrite (E_scal _ _ loo), L. field. lra.
Qed.

(** *** Free tests: the mean of r *)

Theorem prop_free_tests q p n : p ≪ q -> (0 < n)%nat ->
  E[s ∼ sample q n] (total (fun x => p x / q x) s / INR n) = 1 /\
  Var[s ∼ sample q n] (total (fun x => p x / q x) s / INR n) = chi2 p q / INR n.
Proof.
  intros H Hn. assert (N : 0 < INR n) by (now apply lt_0_INR). assert (C := H). apply lem_mean_of_r_covered in C.
  set (r := fun x => p x / q x). change (E q r = 1) in C.
  assert (M : E[s ∼ sample q n] (total r s / INR n) = 1).
  { rewrite (E_ext _ _ (fun s => / INR n * total r s)) by (intros; field; lra).
    rewrite (E_scal _ _ (total r)), E_total, C. field. lra. }
  split; [exact M|].
  unfold Var. rewrite Cov_E. fold r. rewrite M.
  rewrite (E_ext _ _ (fun s => / (INR n * INR n) * (total r s * total r s))) by (intros; field; lra).
  rewrite E_scal, E_total_total, C.
  assert (X2 : E[x ∼ q] (r x * r x) = 1 + chi2 p q).
  { rewrite <- (chi2_second_moment q p H). unfold r. apply (change_of_measure q p (fun x => p x / q x) H). }
  rewrite X2. field. lra.
Qed.

(** *** The mean of k₁ is rarely far below zero *)

Theorem prop_k1_negative_tail q p n t : q ≪ p ->
  E[s ∼ sample q n] (if Rle_dec (total (fun x => k1 (p x / q x)) s) (- (INR n * t)) then 1 else 0) <= exp (- (INR n * t)).
Proof.
  intros H. set (Q := sample q n). set (P := sample p n).
  assert (C : Q ≪ P) by (apply covered_every_step; intros; apply H).
  assert (D : exp (- (INR n * t)) > 0) by apply exp_pos.
  apply Rle_trans with (E[s ∼ Q] (exp (- (INR n * t)) * (P s / Q s))).
  - apply E_le; intros s Hs Ps. assert (R0 := ratio_pos Q P s C Hs Ps).
    assert (K : k1 (P s / Q s) = total (fun x => k1 (p x / q x)) s) by (exact (k1_ratio q p H n s Hs Ps)).
    destruct Rle_dec as [L|L]; [|apply Rmult_le_pos; lra]. rewrite <- K in L. unfold k1 in L.
    rewrite <- (exp_ln (P s / Q s)) by trivial. rewrite <- exp_plus, <- exp_0 at 1.
    destruct (Rle_or_lt (- (INR n * t) + ln (P s / Q s)) 0) as [B|B].
    + right. f_equal. lra.
    + left. now apply exp_increasing.
  - rewrite E_scal, lem_mean_of_r, P_pos_zero. assert (Z := P_zero_nonneg P Q).
    rewrite <- (Rmult_1_r (exp _)) at 2. apply Rmult_le_compat_l; lra.
Qed.
End Samples.
