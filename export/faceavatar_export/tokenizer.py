"""Builds a CLIP tokenizer.json from the published BPE merges, for packs that have no tokenizer of their own.

    python -m faceavatar_export.tokenizer bpe_simple_vocab_16e6.txt.gz tokenizer.json

The merges file is OpenAI's (MIT), shipped by open-clip-torch as open_clip/bpe_simple_vocab_16e6.txt.gz. The
result tokenizes as transformers' CLIPTokenizer does: NFC, white space collapsed, lower case, CLIP's split
pattern, byte-level alphabet, `</w>` at a word's end, 49,408 tokens.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
VOCABULARY_SIZE = 49_408
MERGES = VOCABULARY_SIZE - 2 * 256 - 2  # bytes, bytes at a word's end, the two specials; the rest are merges
PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in the order in which CLIP numbers them."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The first 48,894 pairs of the gzipped merges file; CLIP uses no more of its 262,144."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()[1 : MERGES + 1]
    pairs = [tuple(line.split()) for line in lines]
    return [(pair[0], pair[1]) for pair in pairs]


def build(merges: list[tuple[str, str]]) -> Tokenizer:
    """A CLIP tokenizer whose encode() adds <|startoftext|> 49406 and <|endoftext|> 49407."""
    alphabet = byte_alphabet()
    tokens = alphabet + [character + END_OF_WORD for character in alphabet]
    tokens += ["".join(pair) for pair in merges] + [BOS, EOS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != VOCABULARY_SIZE:
        raise ValueError(f"the merges give {len(vocabulary)} distinct tokens, expected {VOCABULARY_SIZE}")
    tokenizer = Tokenizer(
        BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=END_OF_WORD, unk_token=EOS)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (EOS, vocabulary[EOS]), (BOS, vocabulary[BOS]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (BOS, EOS)])
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a CLIP tokenizer.json from the BPE merges.")
    parser.add_argument("merges", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("output", type=Path, help="the tokenizer.json to write")
    arguments = parser.parse_args()
    build(read_merges(arguments.merges)).save(str(arguments.output), pretty=False)


if __name__ == "__main__":
    main()
