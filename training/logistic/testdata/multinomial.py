"""Writes rows of three classes with the probabilities that scikit-learn's LogisticRegression gives them, weighted.

    pip install scikit-learn==1.9.1
    python training/logistic/testdata/multinomial.py > training/logistic/testdata/multinomial.csv

Inputs are standardized by their weighted moments, as Fit does; the penalty is Params.L2 = 1.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

r = np.random.default_rng(3)
n = 300
x = np.round(np.column_stack([r.normal(size=n), r.exponential(size=n) * 100, r.integers(0, 5, n)]), 4)
signal = x[:, 0] + x[:, 1] / 100 - x[:, 2] / 3 + r.normal(size=n) / 2
y = np.digitize(signal, [0, 1.2])
w = np.round(r.random(n) + 0.25, 3)
mean = np.average(x, axis=0, weights=w)
z = (x - mean) / np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w))
p = LogisticRegression(C=1, tol=1e-12, max_iter=100_000).fit(z, y, w).predict_proba(z)
for i in range(n):
    print(",".join(map(repr, [*x[i].tolist(), int(y[i]), float(w[i]), *p[i].tolist()])))
