"""From typed columns to the matrix that estimators read: fitted once, the same in training and in serving."""
