"""Registered models as MLflow runs them: one file of code per family, weights from safetensors, never a pickle.

MLflow copies the file into the model version and executes it on loading, beside copies of `data/` and `models/`,
so that `mlflow.pyfunc.load_model("models:/tokenizer@production")` works where this repository is not. A process that
has imported other packages of these names gets an error that says so: load the model first, or in a process of its own.
"""
