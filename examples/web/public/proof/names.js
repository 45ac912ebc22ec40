// The words of eptx.json and of proofs that runs go by.

/** Prefixes of the inputs and outputs of a language model's cache. */
export const [PAST, PRESENT] = ["past_key_values.", "present."];
/** The input of an encoder-decoder's decoder that says what of the text is no padding. */
export const ENCODER_MASK = "encoder_attention_mask";
/** The tokens of an encoder-decoder's answer, beside those of the text. */
export const ANSWER_IDS = "decoder_input_ids";
/** Tasks that no adapter has: one switches the adapter off, the other lets the model infer the task. */
export const [BASE, AUTO] = ["base", "auto"];
/** The task id that stands for `AUTO`. */
export const INFER = -1;
/** What the caller may choose, and the outputs that say what was used. */
export const [TASK_ID, ROUTE_GROUP, USED] = ["task_id", "route_group", "_used"];
export const TASK_ID_USED = TASK_ID + USED;
/** The output whose first numbers are a row's answer. */
export const LOGITS = "logits";
/** Names of files that do not stay inside their folder on every system. */
export const OUTSIDE = /(^|\/)(\.{0,2})(\/|$)|[\\:*?"<>|\x00-\x1f\x7f]/;
