"""Export: a checkpoint in the forms that others read; verified on the way, whole or not at all."""
