"""MLflow: experiments, training runs, the server or the file that holds them."""
