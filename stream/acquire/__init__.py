"""From LSL to trials. Read it in the order of the data: inlet, clock, ring, markers, trials,
preprocess, slices, trial_stream; `acquisition` joins the first five, `trial_stream` all."""
