"""The full hard mask's change in one pass over its matrix: Triton kernels, one program for each tile of it.

Of an entry of the change a program makes B A, L = `left` `right` and g in registers. g is Logistic(0, 1), by the seed
and the entry's place alone (Philox4x32-10, as Triton has it), whatever the tiles. `fused.py` launches them.

The low-rank products are sums over the rank and not `tl.dot`, which would round to tf32 or pad the mask's rank of 17 to
32; at so few terms an entry there is little to multiply.
"""

from __future__ import annotations

import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]

# Triton compiles a kernel anew for what it knows of an integer: nothing is worth knowing of these.
PLAIN = ["seed", "rank", "mask_rank"]


@triton.jit
def _logistic(bits):
    """The quantile of Logistic(0, 1) at (k + ½) / 2³²; from the nearer end, since a float near 1 is coarse."""
    signed = bits.to(tl.int32, bitcast=True)
    tail = (tl.where(signed < 0, ~signed, signed).to(tl.float32) + 0.5) * (1.0 / 4294967296.0)
    lower = tl.log(tail) - tl.log(1.0 - tail)
    return tl.where(signed < 0, -lower, lower)


@triton.jit
def _noise(seed, row, COLUMNS: tl.constexpr):
    """g of a tile: rows `row` (n, 1), COLUMNS columns from the program's first. A draw of Philox is four of a row."""
    four = tl.program_id(1) * (COLUMNS // 4) + tl.arange(0, COLUMNS // 4)[None, :]
    place = four + row * 0
    zero = place * 0
    a, b, c, d = tl.philox(seed, row + zero, place, zero, zero)
    return _logistic(tl.interleave(tl.interleave(a, c), tl.interleave(b, d)))


@triton.jit
def _product(tall, wide, row, column, rows, columns, rank):
    """`tall` (rows, rank) times `wide` (rank, columns), of a tile."""
    total = tl.zeros((row.shape[0], column.shape[1]), tl.float32)
    for k in range(rank):
        left = tl.load(tall + row * rank + k, row < rows, 0.0)
        total += left * tl.load(wide + k * columns + column, column < columns, 0.0)
    return total


@triton.jit
def _tile(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Its rows (n, 1), its columns (1, n), where its entries stand in a matrix, and which of them are in it."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return row, column, row.to(tl.int64) * columns + column, (row < rows) & (column < columns)


@triton.jit(do_not_specialize=PLAIN)
def noise(out, rows, columns, seed, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out = g."""
    row, _, place, inside = _tile(rows, columns, ROWS, COLUMNS)
    tl.store(out + place, _noise(seed, row, COLUMNS), inside)


@triton.jit(do_not_specialize=PLAIN)
def form(
    weight, up, down, left, right, out, rows, columns, rank, mask_rank, seed, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """out = W + (B A) ⊙ 1[L + g > 0], or the change alone where `weight` is None; in the precision of `out`."""
    row, column, place, inside = _tile(rows, columns, ROWS, COLUMNS)
    logits = _noise(seed, row, COLUMNS) + _product(left, right, row, column, rows, columns, mask_rank)
    value = tl.where(logits > 0, _product(up, down, row, column, rows, columns, rank), 0.0)
    if weight is not None:
        value += tl.load(weight + place, inside, 0.0).to(tl.float32)
    # A GPU rounds to nearest here (compiled.py looks at the instruction); the interpreter cuts the digits of bf16 off.
    tl.store(out + place, value.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=PLAIN)
def pull(
    given, up, down, left, right, of_product, of_logits, costs, rows, columns, rank, mask_rank, seed, sharpness,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """What a gradient G of the change gives B A, and what it gives L: G ⊙ M and G ⊙ (B A) ⊙ p (1 − p) / τ.

    `given` is G. Where there are `costs`, it is S, the cost is Σ S² Δ², one part of it a program, and G = 2 S² Δ.
    """
    row, column, place, inside = _tile(rows, columns, ROWS, COLUMNS)
    logits = _noise(seed, row, COLUMNS) + _product(left, right, row, column, rows, columns, mask_rank)
    product = _product(up, down, row, column, rows, columns, rank)
    gradient = tl.load(given + place, inside, 0.0).to(tl.float32)
    if costs is not None:
        change = tl.where(logits > 0, product, 0.0)
        gradient = gradient * gradient * change
        part = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(costs + part, tl.sum(gradient * change))
        gradient *= 2
    tl.store(of_product + place, tl.where(logits > 0, gradient, 0.0), inside)
    # ∂m/∂L = p (1 − p) / τ, p = σ((L + g)/τ), and `sharpness` is 1/τ
    soft = tl.sigmoid(logits * sharpness)
    tl.store(of_logits + place, gradient * product * soft * (1 - soft) * sharpness, inside)
