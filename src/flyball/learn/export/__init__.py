"""From a fitted estimator to bytes that answer: exact, deterministic, and never code.

    pack        what training calls: estimator -> named bytes, each measured against the estimator   (heavy imports)
    predictor   what serving calls: named bytes -> something that answers one row or many           (light)
    parity      how far two answers lie apart
    boosted     LightGBM's text: parse, check, floor, write
    lightgbm_c  boosted trees through LightGBM's C library, without importing lightgbm
    graph       ONNX: what is refused, and a session over what is left
    onnx_write  ONNX: converted, stripped to one output, every name our own                         (heavy imports)
    skops_zip   skops: our own closed list, checked before anything is built
    native      scikit-learn through skops                                                          (heavy imports)

Nothing is imported here, because a server must not pay for what it does not use.
"""
