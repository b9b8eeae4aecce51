"""From a fitted estimator to bytes that answer: exact, deterministic, and never code.

    pack        what training calls: estimator -> named bytes, each measured against the estimator   (heavy imports)
    predictor   what serving calls: named bytes -> something that answers one row or many           (light)
    parity      how far two answers lie apart
    several     several estimators, or their artifacts, that answer as one: quantiles, classes seen in part
    families    what is known of a family of estimators, as data: of_lightgbm, of_xgboost, of_sklearn, of_rule
    boosted, lightgbm_c       LightGBM's text: parsed, checked, floored, written; served through its C library
    xgboost_json, xgboost_c   XGBoost's JSON: checked, written; served through its C library
    graph, onnx_write         ONNX: what is refused, a session over what is left; written (heavy imports)
    skops_zip, native         scikit-learn through skops: our own closed list; served by itself (heavy imports)
    ruled       a rule's artifact, which cannot answer without its app

Nothing is imported here, because a server must not pay for what it does not use.
"""
