"""Texts in many scripts with everything that tokenizers treat apart, made by a seed."""

# ruff: noqa: RUF001
from __future__ import annotations

import random

_WORDS = {
    "latin": "the film is great isn't it a really naïve café été Straße Größe œuvre İstanbul ẞ crème brûlée don't "
    "under_score e-mail@host.org http://a.b/c?d=e#f 3.14 1,900 2000s U.S.A. co-operate re-elected",
    "greek": "και το έργο ήταν ωραίο Σίσυφος ὀδός",
    "cyrillic": "это хороший фильм йод ёлка Київ їжак",
    "arabic": "هذا فيلم جيد جداً القُرآن ﷺ ﻻ ١٢٣",
    "hebrew": "זה סרט טוב שָׁלוֹם",
    "indic": "यह फ़िल्म अच्छी है क्षत्रिय தமிழ் বাংলা ਪੰਜਾਬੀ",
    "thai": "นี่คือภาพยนตร์ที่ดีมาก กำลัง ๑๒๓",
    "chinese": "这部电影很好看 東京 大阪 漢字 𠀋𠮷 ，。！ 〇",
    "japanese": "この映画は素晴らしい カタカナ ﾊﾝｶｸ が か\u3099 々",
    "korean": "이 영화는 훌륭하다 한국어 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "other": "ქართული հայերեն አማርኛ ខ្មែរ မြန်မာ ᚠᚢᚦ 𝔘𝔫𝔦 𐍈𐌰𐌹 ﬁne ﬃ ½ Ⅷ ①② ㎏ ＡＢＣ１２３ ʼn ſ",
}
_SIGNS = [
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd", "\u2764\ufe0f",
    "\U0001f1e9\U0001f1ea", "#\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "!", "?!", "...", "\u2026",
    "--", "\u2014", "'", '"', "``", "''", "\u201c\u201d", "\u00ab\u00bb", "(", ")", "[x]", "{}", "<b>", "&amp;", "$5",
    "\u20ac9,99", "100%", "\u00b0C", "\u00b5", "\u2122", "a\u0301\u0323", "e\u0301\u0301\u0301", "\u0345",
    "o\u0308\u0304", "\u2581", "\u2581a", "##s", "\u0120the", "</w>", "@@",
]  # fmt: skip
_SPACES = [
    " ", " ", " ", " ", " ", " ", "  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2009", "\u2028", "\u200b",
    "\u200d", "\ufeff", "\u00ad", "\x00", "\x07", "\x1f", "\x7f", "\x85", "\ufffd", "\u202e", "", "",
]  # fmt: skip
SPECIAL = [
    "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "[mask]", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<MASK>",
    " <mask>", "<mask> ", "<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED", "<s><s>", "[MASK][MASK]", "a<mask>b",
]  # fmt: skip


def text(draw: random.Random, special: float = 0.15) -> str:
    """Return one text; `special` is the probability of strings that are special tokens to some tokenizer."""
    kind = draw.random()
    if kind < 0.01:
        return draw.choice(["", " ", "\n\n", "\u3000", "\u200b", "\x00"])
    if kind < 0.03:
        return draw.choice(["x", "ß", "東", "\u0301", "a\u0308"]) * draw.choice([99, 100, 101, 130])
    if kind < 0.06:
        return "".join(chr(draw.choice(_CHARACTERS)) for _ in range(draw.randint(1, 20)))
    parts = []
    scripts = draw.sample(list(_WORDS), draw.choice([1, 1, 1, 2, 3]))
    for _ in range(draw.choice([1, 3, 6, 12, 25])):
        parts.append(draw.choice(_WORDS[draw.choice(scripts)].split()))
        if draw.random() < 0.2:
            parts.append(draw.choice(_SIGNS))
        if special and draw.random() < special / 5:
            parts.append(draw.choice(SPECIAL))
        if draw.random() < 0.1:
            parts[-1] = draw.choice([str.upper, str.title, str.lower, lambda word: word[: len(word) // 2]])(parts[-1])
        parts.append(draw.choice(_SPACES))
    return "".join(parts)


_CHARACTERS = [code for code in range(0x20000) if not 0xD800 <= code < 0xE000]


def texts(count: int, seed: int, special: float = 0.15) -> list[str]:
    """Return `count` texts, the same for the same seed."""
    draw = random.Random(seed)
    return [text(draw, special) for _ in range(count)]
