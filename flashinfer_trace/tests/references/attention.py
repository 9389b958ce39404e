"""How far attention kernels may be from the references, and why."""

import math

import torch
from trace_data import assert_close

# bfloat16 keeps 8 significant bits: rounding to nearest errs by at most 2^-8 of the value. The kernels multiply exactly
# and sum in float32, but they round the weights to bfloat16 before they mix the values, and some divide by the sum of
# the rounded weights: twice 2^-8 of the mix of the values' magnitudes. Both sides round their outputs, and may end on
# neighbouring values: 2^-7 of the value.
WEIGHTS, OUTPUT = 2**-7, 2**-7
# lse is the base-2 logarithm of that sum, in float32. What float32 and the hardware's exp2 add is near 1e-5; where the
# rounded weights are summed, the sum errs by 2^-8 of itself at most.
LSE, LSE_OF_ROUNDED = 1e-4, 2**-8 / math.log(2) + 1e-4
# The reference computes in float32 and rounds once.
REFERENCE = {"rtol": 2**-8, "atol": 1e-5}
# Two results that sum in different orders may round to neighbouring values, up to 2^-7 of the value apart.
NEIGHBOURS = {"rtol": 2**-7, "atol": 1e-5}


def check_reference(definition, inputs, independent, lse=1e-5):
    """The reference against `independent`, a function that computes in float64; `lse` is what its lse may err by."""
    output, logarithm = definition.run(**inputs)
    expected, expected_logarithm = independent(**inputs)
    assert (output.dtype, logarithm.dtype) == (torch.bfloat16, torch.float32)
    assert_close(output, expected, **REFERENCE)
    assert_close(logarithm, expected_logarithm, rtol=1e-6, atol=lse)


def check_kernel(definition, inputs, results, lse, magnitudes=None):
    """Output and lse of a kernel against the reference; `lse` is what its lse may err by.

    `magnitudes` is the same attention over the magnitudes of the values.
    """
    if magnitudes is None:
        magnitudes, _ = definition.run(**inputs | {"v_cache": inputs["v_cache"].abs()})
    expected, expected_logarithm = definition.run(**inputs)
    assert_close(results[0], expected, rtol=OUTPUT, atol=WEIGHTS * magnitudes.double())
    assert_close(results[1], expected_logarithm, rtol=0, atol=lse)
