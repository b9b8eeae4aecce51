"""Explanation: what a version makes of its features, over held-out rows and for one question.

    shap          contributions of features to a raw score: exact where the model allows it, else sampled, with how sure
    walks         the contributions of models that do not tell them themselves
    dependence    what the answers become as one feature changes (partial dependence), with the spread over rows
    neighbours    the training rows that lie nearest to a question, by their places alone
    explanation   all that is told of a version as a whole, as a value that is stored with it
    pictures      its charts, drawn when somebody looks                                          (heavy imports)

Nothing here holds or returns a row: what is stored are means over rows, and grid points that many rows share.
"""
