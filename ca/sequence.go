package ca

// Sequencing is the duty of giving audit leaves their places in the log, and of signing its checkpoints.
const Sequencing Duty = "sequencing"
