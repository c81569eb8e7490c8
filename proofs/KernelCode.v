(** * What klapprox._kernels does in float64, operation by operation

   Made by python -m bookbuild.kernel, which runs the package on symbols; not edited by hand. *)
From KL Require Import Float64.

(** The coefficients of t, exactly as float64 holds them. *)
Definition coth0 : R := 6004799503160659 / 18014398509481984. (* 0.3333333333333332 *)
Definition coth1 : R := -3202559735010453 / 144115188075855872. (* -0.02222222222216278 *)
Definition coth2 : R := 2440045508003669 / 1152921504606846976. (* 0.0021164021125928594 *)
Definition coth3 : R := -7808142257876015 / 36893488147419103232. (* -0.00021164011997662618 *)
Definition coth4 : R := 6309302006665475 / 295147905179352825856. (* 2.1376746695293314e-05 *)
Definition coth5 : R := -5095853011852921 / 2361183241434822606848. (* -2.1581776977022414e-06 *)
Definition coth6 : R := 1896739599414579 / 9444732965739290427392. (* 2.0082511663325898e-07 *)

(** E is what the library returns for expm1(x). Every operation is rounded. *)
Definition k3_near (E x : R) : R :=
  let v1 := rnd (x * (1 / 2)) in
  let v2 := rnd (v1 * v1) in
  let v3 := rnd (v2 * coth6) in
  let v4 := rnd (v3 + coth5) in
  let v5 := rnd (v4 * v2) in
  let v6 := rnd (v5 + coth4) in
  let v7 := rnd (v6 * v2) in
  let v8 := rnd (v7 + coth3) in
  let v9 := rnd (v8 * v2) in
  let v10 := rnd (v9 + coth2) in
  let v11 := rnd (v10 * v2) in
  let v12 := rnd (v11 + coth1) in
  let v13 := rnd (v12 * v2) in
  let v14 := rnd (v13 + coth0) in
  let v15 := rnd (v14 * v2) in
  let v16 := rnd (v1 - v15) in
  let v17 := rnd (v16 * E) in
  v17.

Definition k3_far (E x : R) : R :=
  let v1 := rnd (E - x) in
  v1.

(** NumPy arrays, which are worked on block by block. *)
Definition k3_numpy (E x : R) : R :=
  let v1 := rnd (x * (1 / 2)) in
  let v2 := rnd (v1 * v1) in
  if Rle_dec (1 / 4) v2 then k3_far E x else k3_near E x.

(** PyTorch and other arrays, but not JAX. *)
Definition k3_arrays (E x : R) : R :=
  if Rlt_dec (Rabs x) 1 then k3_near E x else k3_far E x.
