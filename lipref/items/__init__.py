"""The tables of single items of the paper and of the first experiments, and the records that they show."""
