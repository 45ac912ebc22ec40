// From texts to the model's inputs, as eptx's Tokenizer in Python makes them: tokens, truncation and padding.

export class Text {
  #tokenizer;
  #length;
  #pad;
  #left;
  #cutsLeft;
  #lowers;
  #lowercase;

  /**
   * @param Tokenizer the class of @huggingface/tokenizers
   * @param {{manifest: object, tokenizer: object, tokenizerConfig: object}} files the bundle's eptx.json,
   *   tokenizer.json and tokenizer_config.json
   */
  constructor(Tokenizer, { manifest, tokenizer, tokenizerConfig }) {
    this.#tokenizer = new Tokenizer(tokenizer, tokenizerConfig);
    const { max_length, truncation_side, padding_side, pad, lower_case } = manifest.text;
    this.#length = max_length ?? Infinity;
    this.#cutsLeft = truncation_side === "left";
    this.#pad = pad;
    this.#left = padding_side === "left";
    this.#lowers = lower_case;
    this.#lowercase = tokenizer.normalizer?.type === "BertNormalizer" && tokenizer.normalizer.lowercase;
  }

  /**
   * One row's tokens.
   * @param {string} first
   * @param {string | null} second the other text of a pair
   * @returns {{ids: number[], types: number[]}}
   */
  encode(first, second = null) {
    const pair = second === null ? null : this.#tokens(second);
    const [a, b] = this.#truncated(this.#tokens(first), pair);
    const { tokens, token_type_ids } = this.#finished(a, b);
    return { ids: tokens.map((token) => this.#id(token)), types: token_type_ids ?? tokens.map(() => 0) };
  }

  /**
   * Several rows, padded to the longest.
   * @param {{text: string, text_pair?: string | null}[]} rows
   * @returns {{dims: number[], columns: Object<string, number[]>}} dims [rows, length], each column [rows * length]
   */
  batch(rows) {
    const encoded = rows.map((row) => this.encode(row.text, row.text_pair ?? null));
    const length = Math.max(...encoded.map((row) => row.ids.length));
    const column = (values, pad) => encoded.flatMap((row) => this.#padded(values(row), pad, length));
    return {
      dims: [rows.length, length],
      columns: {
        input_ids: column((row) => row.ids, this.#pad),
        attention_mask: column((row) => row.ids.map(() => 1), 0),
        token_type_ids: column((row) => row.types, 0),
      },
    };
  }

  /** A text's own tokens. JavaScript lowers the last sigma of a word to ς; tokenizers know σ alone. */
  #tokens(text) {
    const lowered = this.#lowercase || this.#lowers ? text.replaceAll("Σ", "σ") : text;
    return this.#tokenizer.tokenize(this.#lowers ? lowered.toLowerCase() : lowered, { add_special_tokens: false });
  }

  #finished(a, b) {
    const merged = { tokens: [...a, ...(b ?? [])] };
    return this.#tokenizer.post_processor?.(a, b, true) ?? merged;
  }

  #id(token) {
    return this.#tokenizer.token_to_id(token) ?? this.#tokenizer.model.unk_token_id;
  }

  /** What the model can read, special tokens included: the longer text of a pair is cut first, then both alike. */
  #truncated(a, b) {
    const room = this.#length - this.#finished([], b && []).tokens.length;
    if (a.length + (b?.length ?? 0) <= room) return [a, b];
    if (b === null) return [this.#kept(a, room), null];
    const short = Math.min(a.length, b.length);
    let sizes = [short, Math.max(short, room - short)];
    if (sizes[0] + sizes[1] > room) sizes = [Math.floor(room / 2), Math.ceil(room / 2)];
    if (a.length > b.length) sizes.reverse();
    return [this.#kept(a, sizes[0]), this.#kept(b, sizes[1])];
  }

  #kept(tokens, count) {
    return this.#cutsLeft ? tokens.slice(tokens.length - count) : tokens.slice(0, count);
  }

  #padded(values, pad, length) {
    const padding = new Array(length - values.length).fill(pad);
    return this.#left ? [...padding, ...values] : [...values, ...padding];
  }
}
