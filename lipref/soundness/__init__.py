"""What a proof is worth.

`constants`: Lipschitz constants computed the published way beside proved ones. `price`: what soundness costs in
certified robust accuracy. `specimens` and `refuted`: false certificates, and the attacks that refute them. `records`
and `tables`: the files of runs, and what is shown of them.
"""
