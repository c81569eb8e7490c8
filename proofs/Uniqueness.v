(** * Uniqueness: of the estimator, and of the estimators with the right gradients *)
From KL Require Export Distance Variance Optima.
From Coquelicot Require Import Coquelicot.

(** ** The only unbiased estimators that are functions of r are the k_λ *)

(** All pairs with full support on two points. *)
Theorem thm_uniqueness (h : R -> R) :
  (forall q p : law [true; false], full_support q -> full_support p -> E[x ∼ q] h (p x / q x) = KL q p) ->
  exists λ, forall r, 0 < r -> h r = k λ r.
Proof.
  intros H. set (f r := h r + ln r).
  (* a < 1 < b, the ratios of a pair *)
  assert (P : forall a b, 0 < a < 1 -> 1 < b -> (b - 1) * f a + (1 - a) * f b = 0).
  { intros a b Ha Hb. assert (H1 : 0 < (b - 1) / (b - a) < 1).
    { split; [apply Rdiv_lt_0_compat; lra|]. apply Rmult_lt_reg_r with (b - a); [lra|].
      unfold Rdiv. rewrite Rmult_assoc, Rinv_l; lra. }
    assert (H2 : 0 < a * ((b - 1) / (b - a)) < 1) by nra.
    assert (S := H (coin _ H1) (coin _ H2) (coin_full _ H1) (coin_full _ H2)).
    unfold KL, E in S. simpl in S.
    replace (a * ((b - 1) / (b - a)) / ((b - 1) / (b - a))) with a in S by (field; repeat split; lra).
    replace ((1 - a * ((b - 1) / (b - a))) / (1 - (b - 1) / (b - a))) with b in S by (field; repeat split; lra).
    unfold f. apply Rmult_eq_reg_r with (/ (b - a)); [|apply Rinv_neq_0_compat; lra].
    apply (f_equal (fun v => v - ((b - 1) / (b - a) * - ln a + ((1 - (b - 1) / (b - a)) * - ln b + 0)))) in S.
    replace (((b - 1) * (h a + ln a) + (1 - a) * (h b + ln b)) * / (b - a)) with
      ((b - 1) / (b - a) * h a + ((1 - (b - 1) / (b - a)) * h b + 0)
       - ((b - 1) / (b - a) * - ln a + ((1 - (b - 1) / (b - a)) * - ln b + 0))) by (field; lra).
    rewrite S. ring. }
  assert (H0 : h 1 = 0).
  { assert (Hh : 0 < 1 / 2 < 1) by lra. assert (S := H (coin _ Hh) (coin _ Hh) (coin_full _ Hh) (coin_full _ Hh)).
    rewrite (same_KL _ _ (fun x _ => eq_refl)) in S. unfold E in S. simpl in S.
    replace (1 / 2 / (1 / 2)) with 1 in S by field. replace ((1 - 1 / 2) / (1 - 1 / 2)) with 1 in S by field. lra. }
  exists (f 2). intros r Hr. assert (Q := P (1 / 2) 2 ltac:(lra) ltac:(lra)).
  cut (f r = f 2 * (r - 1)); [unfold f, k; lra|].
  destruct (Rtotal_order r 1) as [L|[->|L]].
  - assert (S := P r 2 ltac:(lra) ltac:(lra)). lra.
  - unfold f. rewrite H0, ln_1. ring.
  - assert (S := P (1 / 2) r ltac:(lra) L). replace (f (1 / 2)) with (- (f 2 / 2)) in S by lra. lra.
Qed.

(** The only nonnegative one is k₃. *)
Theorem thm_uniqueness_nonnegative (h : R -> R) :
  (forall q p : law [true; false], full_support q -> full_support p -> E[x ∼ q] h (p x / q x) = KL q p) ->
  (forall r, 0 < r -> 0 <= h r) -> forall r, 0 < r -> h r = k3 r.
Proof.
  intros H N. destruct (thm_uniqueness h H) as [λ S]. assert (λ = 1).
  { apply thm_nonnegative_lambda. intros r Hr. rewrite <- S by trivial. auto. }
  subst. intros r Hr. rewrite k3_k. auto.
Qed.

(** ** Gradients in the logits of three actions *)

Definition actions : list nat := [0; 1; 2]%nat.
Lemma actions_not_empty : actions <> [].
Proof. discriminate. Qed.
Lemma actions_distinct : NoDup actions.
Proof. repeat constructor; simpl; intuition discriminate. Qed.

Definition soft (z : nat -> R) : law actions := softmax actions_not_empty z.
(** The policy as a function of the j-th logit, and its score. *)
Definition along (z : nat -> R) (j : nat) (s : R) : law actions := soft (replace_logit PeanoNat.Nat.eq_dec z j s).
Definition score_of (z : nat -> R) (j x : nat) : R := score (along z j) (z j) x.

Lemma soft_has_full_support z : full_support (soft z).
Proof. apply softmax_full. Qed.

Lemma mean_score z j g : j ∈ actions -> E[x ∼ soft z] (g x * score_of z j x) = soft z j * (g j - E (soft z) g).
Proof.
  intros Hj. destruct (lem_score_softmax actions_not_empty PeanoNat.Nat.eq_dec actions_distinct z j Hj) as [_ S].
  exact (S g).
Qed.

Lemma along_differentiable z j : j ∈ actions -> forall x, x ∈ actions -> ex_derive (fun s : R => along z j s x) (z j).
Proof. intros Hj x Hx. eexists. apply softmax_partial; trivial. apply actions_distinct. Qed.

Lemma E_along z j f : E (along z j (z j)) f = E (soft z) f.
Proof. apply E_replace_same. Qed.

Lemma soft_along z j x : along z j (z j) x = soft z x.
Proof. apply softmax_replace_same. Qed.

(** If a function of r has always the mean gradient zero, it is constant: the pair with the ratios a, b, 2/(a+b). *)
Lemma constant (g : R -> R) :
  (forall z (ref : law actions) j, full_support ref -> j ∈ actions ->
    soft z j * (g (ref j / soft z j) - E[x ∼ soft z] g (ref x / soft z x)) = 0) ->
  forall a b, 0 < a -> 0 < b -> g a = g b.
Proof.
  intros H a b Ha Hb. set (n := 2 + a + b).
  set (z := fun i : nat => match i with 2%nat => ln (a + b) | _ => 0 end).
  set (m := fun i : nat => match i with 0%nat => a / n | 1%nat => b / n | _ => 2 / n end).
  assert (Pm : forall i, 0 < m i).
  { intros [|[|i]]; unfold m, n; apply Rdiv_lt_0_compat; lra. }
  assert (Sm : ∑ i ∈ actions, m i = 1) by (unfold m, n; simpl; field; lra).
  set (ref := Law m (fun x _ => Rlt_le _ _ (Pm x)) Sm : law actions).
  assert (F : full_support ref) by (intros x _; apply Pm).
  assert (Sz : ∑ y ∈ actions, exp (z y) = n).
  { unfold z, n; simpl. rewrite exp_0, exp_ln by lra. ring. }
  assert (Z0 := H z ref 0%nat F ltac:(simpl; auto)). assert (Z1 := H z ref 1%nat F ltac:(simpl; auto)).
  assert (Fs := soft_has_full_support z). assert (P0 := Fs 0%nat ltac:(simpl; auto)). assert (P1 := Fs 1%nat ltac:(simpl; auto)).
  assert (M : forall i, soft z i = exp (z i) / n) by (intros; simpl; unfold softmax_mass; now rewrite Sz).
  assert (R0 : ref 0%nat / soft z 0%nat = a).
  { rewrite M. simpl. rewrite exp_0. unfold n. field. lra. }
  assert (R1 : ref 1%nat / soft z 1%nat = b).
  { rewrite M. simpl. rewrite exp_0. unfold n. field. lra. }
  rewrite R0 in Z0. rewrite R1 in Z1.
  apply Rmult_integral in Z0 as [Z0|Z0]; [lra|]. apply Rmult_integral in Z1 as [Z1|Z1]; lra.
Qed.

(** If two functions of r have always the same mean gradient, they differ by a constant. *)
Lemma same_gradients (g1 g2 : R -> R) :
  (forall z (ref : law actions) j, full_support ref -> j ∈ actions ->
    E[x ∼ soft z] (g1 (ref x / soft z x) * score_of z j x) = E[x ∼ soft z] (g2 (ref x / soft z x) * score_of z j x)) ->
  exists c, forall r, 0 < r -> g1 r = g2 r + c.
Proof.
  intros H. exists (g1 1 - g2 1). intros r Hr.
  assert (C := constant (fun r => g1 r - g2 r)). cut (g1 r - g2 r = g1 1 - g2 1); [lra|]. apply C; trivial; [|lra].
  intros z ref j F Hj. assert (S := H z ref j F Hj).
  rewrite (mean_score z j (fun x => g1 (ref x / soft z x)) Hj), (mean_score z j (fun x => g2 (ref x / soft z x)) Hj) in S.
  rewrite E_minus. lra.
Qed.

Lemma unique_derive (f : R -> R) t d d' : is_derive f t d -> is_derive f t d' -> d = d'.
Proof. intros D D'. apply is_derive_unique in D. apply is_derive_unique in D'. congruence. Qed.

Lemma gradient_of_KL z (ref : law actions) j : full_support ref -> j ∈ actions ->
  is_derive (fun s : R => KL (along z j s) ref) (z j) (E[x ∼ soft z] (k1 (ref x / soft z x) * score_of z j x)).
Proof.
  intros F Hj. assert (D := gradient_KL (along z j) ref (z j) (fun s => soft_has_full_support _) F (along_differentiable z j Hj)).
  eapply is_derive_eq; [exact D|]. rewrite E_along. apply E_ext; intros x Hx _. now rewrite soft_along.
Qed.

(** In the reward: only k₁, up to a constant. *)
Theorem thm_unique_gradients_reward (h : R -> R) :
  (forall z (ref : law actions) j, full_support ref -> j ∈ actions ->
    is_derive (fun s : R => KL (along z j s) ref) (z j) (E[x ∼ soft z] (h (ref x / soft z x) * score_of z j x)))
  <-> exists c, forall r, 0 < r -> h r = k1 r + c.
Proof.
  split.
  - intros H. apply same_gradients. intros z ref j F Hj.
    apply (unique_derive _ _ _ _ (H z ref j F Hj)). now apply gradient_of_KL.
  - intros [c H] z ref j F Hj. eapply is_derive_eq; [now apply gradient_of_KL|].
    rewrite (mean_score z j (fun x => h (ref x / soft z x)) Hj), (mean_score z j (fun x => k1 (ref x / soft z x)) Hj).
    assert (P : forall x, x ∈ actions -> 0 < ref x / soft z x).
    { intros x Hx. apply Rdiv_lt_0_compat; [now apply F|now apply soft_has_full_support]. }
    rewrite (H _ (P j Hj)).
    rewrite (E_ext (soft z) (fun x => h (ref x / soft z x)) (fun x => k1 (ref x / soft z x) + c)) by (intros; apply H; auto).
    rewrite E_plus, E_const. ring.
Qed.

(** In the loss, the mean of ∇h is that of -r h'(r) s. *)
Lemma gradient_of_loss (h h' : R -> R) z (ref : law actions) j : (forall r, 0 < r -> is_derive h r (h' r)) ->
  full_support ref -> j ∈ actions ->
  E[x ∼ soft z] Derive (fun s : R => h (ref x / along z j s x)) (z j) =
  E[x ∼ soft z] (- (ref x / soft z x) * h' (ref x / soft z x) * score_of z j x).
Proof.
  intros D F Hj.
  assert (L := loss_gradient (along z j) ref (z j) (fun s => soft_has_full_support _) F (along_differentiable z j Hj) h h' D).
  rewrite !E_along in L. rewrite L. apply E_ext; intros x Hx _. now rewrite soft_along.
Qed.

(** A function with the derivative zero on r > 0 is constant there. *)
Lemma zero_derivative (f : R -> R) : (forall r, 0 < r -> is_derive f r 0) -> forall r, 0 < r -> f r = f 1.
Proof.
  intros D. assert (M : forall a b, 0 < a -> a < b -> f a = f b).
  { intros a b Ha Hab. destruct (MVT_cor2 f (fun _ => 0) a b Hab) as (c & S & _); [|lra].
    intros c Hc. apply is_derive_Reals, D. lra. }
  intros r Hr. destruct (Rtotal_order r 1) as [L|[->|L]]; [now apply M|easy|symmetry; apply M; lra].
Qed.

Theorem thm_unique_gradients_loss (h : R -> R) : (forall r, 0 < r -> ex_derive h r) ->
  (forall z (ref : law actions) j, full_support ref -> j ∈ actions ->
    is_derive (fun s : R => KL (along z j s) ref) (z j)
      (E[x ∼ soft z] Derive (fun s : R => h (ref x / along z j s x)) (z j))) ->
  exists c c', forall r, 0 < r -> h r = k2 r + c * k1 r + c'.
Proof.
  intros Dh H. assert (D : forall r, 0 < r -> is_derive h r (Derive h r)) by (intros; apply Derive_correct; auto).
  destruct (same_gradients (fun r => - r * Derive h r) k1) as [c S].
  { intros z ref j F Hj. rewrite <- (gradient_of_loss h (Derive h) z ref j D F Hj).
    apply (unique_derive _ _ _ _ (H z ref j F Hj)). now apply gradient_of_KL. }
  exists c. set (f r := h r - (k2 r + c * k1 r)). exists (f 1). intros r Hr.
  cut (f r = f 1); [unfold f at 1; lra|]. apply zero_derivative; trivial. clear r Hr. intros r Hr. unfold f.
  assert (E' := S r Hr). cbv beta in E'. unfold k1 in E'.
  eapply is_derive_eq.
  - apply derive_minus; [now apply D|]. apply derive_plus; [now apply is_derive_k2|]. apply derive_scal. now apply is_derive_k1.
  - replace (Derive h r) with ((ln r - c) / r); [field; lra|].
    apply Rmult_eq_reg_l with (- r); [|lra]. rewrite E'. field. lra.
Qed.

Theorem thm_unique_gradients_reverse (h : R -> R) : (forall r, 0 < r -> ex_derive h r) ->
  (forall z (ref : law actions) j, full_support ref -> j ∈ actions ->
    is_derive (fun s : R => KL ref (along z j s)) (z j)
      (E[x ∼ soft z] Derive (fun s : R => h (ref x / along z j s x)) (z j))) ->
  exists c c', forall r, 0 < r -> h r = r + c * ln r + c'.
Proof.
  intros Dh H. assert (D : forall r, 0 < r -> is_derive h r (Derive h r)) by (intros; apply Derive_correct; auto).
  destruct (same_gradients (fun r => - r * Derive h r) (fun r => - r * (1 - / r))) as [c S].
  { intros z ref j F Hj. rewrite <- (gradient_of_loss h (Derive h) z ref j D F Hj).
    rewrite <- (gradient_of_loss k3 (fun r => 1 - / r) z ref j is_derive_k3 F Hj).
    apply (unique_derive _ _ _ _ (H z ref j F Hj)).
    assert (G := thm_on_policy_gradients_loss_k3 (along z j) ref (z j) (fun s => soft_has_full_support _) F (along_differentiable z j Hj)).
    now rewrite E_along in G. }
  set (d := - (1 + c)). exists d. set (f r := h r - (r + d * ln r)). exists (f 1). intros r Hr.
  cut (f r = f 1); [unfold f at 1; lra|]. apply zero_derivative; trivial. clear r Hr. intros r Hr. unfold f.
  assert (E' := S r Hr). cbv beta in E'.
  eapply is_derive_eq.
  - apply derive_minus; [now apply D|]. apply derive_plus; [exact (is_derive_id r)|]. apply derive_scal.
    apply is_derive_Reals, derivable_pt_lim_ln, Hr.
  - replace (Derive h r) with (1 + d / r); [unfold one; simpl; field; lra|].
    apply Rmult_eq_reg_l with (- r); [|lra]. rewrite E'. unfold d. field. lra.
Qed.

(** The other direction for losses: these functions do have the gradients. *)
Theorem thm_unique_gradients_converse : forall c c' z (ref : law actions) j, full_support ref -> j ∈ actions ->
  is_derive (fun s : R => KL (along z j s) ref) (z j)
    (E[x ∼ soft z] Derive (fun s : R => k2 (ref x / along z j s x) + c * k1 (ref x / along z j s x) + c') (z j)) /\
  is_derive (fun s : R => KL ref (along z j s)) (z j)
    (E[x ∼ soft z] Derive (fun s : R => ref x / along z j s x + c * ln (ref x / along z j s x) + c') (z j)).
Proof.
  intros c c' z ref j F Hj.
  assert (Z0 : E (soft z) (score_of z j) = 0).
  { transitivity (E[x ∼ soft z] score_of z j x); [easy|]. rewrite (E_ext _ _ (fun x => 1 * score_of z j x)) by (intros; ring).
    rewrite (mean_score z j (fun _ => 1) Hj), E_const. ring. }
  assert (P : forall x, x ∈ actions -> 0 < ref x / soft z x).
  { intros x Hx. apply Rdiv_lt_0_compat; [now apply F|now apply soft_has_full_support]. }
  split.
  - rewrite (gradient_of_loss (fun r => k2 r + c * k1 r + c') (fun r => ln r / r + c * - / r) z ref j); trivial.
    + eapply is_derive_eq; [now apply gradient_of_KL|].
      symmetry. transitivity (E[x ∼ soft z] (k1 (ref x / soft z x) * score_of z j x + c * score_of z j x)).
      2:rewrite E_plus, E_scal, Z0; ring.
      apply E_ext. intros x Hx _. specialize (P x Hx). generalize dependent (ref x / soft z x). intros r Hr. unfold k1. field. lra.
    + intros r Hr. eapply is_derive_eq.
      * apply derive_plus; [apply derive_plus; [now apply is_derive_k2|apply derive_scal; now apply is_derive_k1]|exact (is_derive_const c' r)].
      * unfold zero; simpl; ring.
  - rewrite (gradient_of_loss (fun r => r + c * ln r + c') (fun r => 1 + c * / r) z ref j); trivial.
    + assert (G := thm_on_policy_gradients_loss_k3 (along z j) ref (z j) (fun s => soft_has_full_support _) F (along_differentiable z j Hj)).
      rewrite E_along in G. eapply is_derive_eq; [exact G|].
      rewrite (gradient_of_loss k3 (fun r => 1 - / r) z ref j is_derive_k3 F Hj).
      rewrite (E_ext (soft z) (fun x => - (ref x / soft z x) * (1 + c * / (ref x / soft z x)) * score_of z j x)
        (fun x => - (ref x / soft z x) * (1 - / (ref x / soft z x)) * score_of z j x + (- (1 + c)) * score_of z j x)).
      * rewrite E_plus, E_scal, Z0. ring.
      * intros x Hx _. specialize (P x Hx). generalize dependent (ref x / soft z x). intros r Hr. field. lra.
    + intros r Hr. eapply is_derive_eq.
      * apply derive_plus; [apply derive_plus; [exact (is_derive_id r)|apply derive_scal; apply is_derive_Reals, derivable_pt_lim_ln, Hr]|exact (is_derive_const c' r)].
      * unfold zero, one; simpl; ring.
Qed.
