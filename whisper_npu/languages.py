"""The languages that Whisper knows: codes, English names, other names. Source: openai/whisper."""

from __future__ import annotations

import re
from difflib import get_close_matches

from whisper_npu.errors import OptionError

# fmt: off
LANGUAGES = {  # in the order of their tokens
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian",
    "ko": "korean", "fr": "french", "ja": "japanese", "pt": "portuguese", "tr": "turkish",
    "pl": "polish", "ca": "catalan", "nl": "dutch", "ar": "arabic", "sv": "swedish",
    "it": "italian", "id": "indonesian", "hi": "hindi", "fi": "finnish", "vi": "vietnamese",
    "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay", "cs": "czech",
    "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian",
    "th": "thai", "ur": "urdu", "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian",
    "la": "latin", "mi": "maori", "ml": "malayalam", "cy": "welsh", "sk": "slovak",
    "te": "telugu", "fa": "persian", "lv": "latvian", "bn": "bengali", "sr": "serbian",
    "az": "azerbaijani", "sl": "slovenian", "kn": "kannada", "et": "estonian",
    "mk": "macedonian", "br": "breton", "eu": "basque", "is": "icelandic", "hy": "armenian",
    "ne": "nepali", "mn": "mongolian", "bs": "bosnian", "kk": "kazakh", "sq": "albanian",
    "sw": "swahili", "gl": "galician", "mr": "marathi", "pa": "punjabi", "si": "sinhala",
    "km": "khmer", "sn": "shona", "yo": "yoruba", "so": "somali", "af": "afrikaans",
    "oc": "occitan", "ka": "georgian", "be": "belarusian", "tg": "tajik", "sd": "sindhi",
    "gu": "gujarati", "am": "amharic", "yi": "yiddish", "lo": "lao", "uz": "uzbek",
    "fo": "faroese", "ht": "haitian creole", "ps": "pashto", "tk": "turkmen", "nn": "nynorsk",
    "mt": "maltese", "sa": "sanskrit", "lb": "luxembourgish", "my": "myanmar", "bo": "tibetan",
    "tl": "tagalog", "mg": "malagasy", "as": "assamese", "tt": "tatar", "haw": "hawaiian",
    "ln": "lingala", "ha": "hausa", "ba": "bashkir", "jw": "javanese", "su": "sundanese",
    "yue": "cantonese",
}
ALIASES = {
    "burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb",
    "pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si",
    "castilian": "es", "mandarin": "zh",
}
OWN_NAMES = {  # what speakers call their language, where people may type it on a keyboard
    "deutsch": "de", "español": "es", "espanol": "es", "castellano": "es", "français": "fr",
    "francais": "fr", "italiano": "it", "português": "pt", "portugues": "pt", "nederlands": "nl",
    "vlaams": "nl", "svenska": "sv", "dansk": "da", "norsk": "no", "bokmål": "no", "bokmal": "no",
    "suomi": "fi", "íslenska": "is", "islenska": "is", "føroyskt": "fo", "polski": "pl",
    "čeština": "cs", "cestina": "cs", "česky": "cs", "slovenčina": "sk", "slovencina": "sk",
    "slovenščina": "sl", "slovenscina": "sl", "hrvatski": "hr", "bosanski": "bs", "srpski": "sr",
    "српски": "sr", "македонски": "mk", "български": "bg", "magyar": "hu", "română": "ro",
    "romana": "ro", "shqip": "sq", "ελληνικά": "el", "ellinika": "el", "türkçe": "tr",
    "turkce": "tr", "русский": "ru", "russkij": "ru", "українська": "uk", "беларуская": "be",
    "eesti": "et", "latviešu": "lv", "latviesu": "lv", "lietuvių": "lt", "lietuviu": "lt",
    "català": "ca", "galego": "gl", "euskara": "eu", "brezhoneg": "br",
    "cymraeg": "cy", "lëtzebuergesch": "lb", "malti": "mt", "עברית": "he", "ivrit": "he",
    "العربية": "ar", "arabi": "ar", "فارسی": "fa", "farsi": "fa", "اردو": "ur", "हिन्दी": "hi",
    "中文": "zh", "汉语": "zh", "漢語": "zh", "普通话": "zh", "putonghua": "zh", "zhongwen": "zh",
    "粵語": "yue", "粤语": "yue", "日本語": "ja", "nihongo": "ja", "한국어": "ko", "hangugeo": "ko",
    "ไทย": "th", "tiếng việt": "vi", "tieng viet": "vi", "bahasa indonesia": "id",
    "bahasa melayu": "ms", "kiswahili": "sw", "filipino": "tl", "pilipino": "tl",
    "iw": "he", "jv": "jw", "nb": "no", "cmn": "zh", "fil": "tl", "ger": "de", "deu": "de",
    "eng": "en", "fra": "fr", "fre": "fr", "spa": "es", "ita": "it", "por": "pt", "rus": "ru",
    "jpn": "ja", "kor": "ko", "zho": "zh", "chi": "zh", "cn": "zh", "jp": "ja", "kr": "ko",
    "cz": "cs", "dk": "da", "se": "sv", "gr": "el", "ua": "uk",
}
# fmt: on
UNSPACED = frozenset(("zh", "ja", "th", "lo", "my", "yue"))  # no spaces between words


def language_code(name: str) -> str:
    """Code of a language: French, french and fr are all fr. Raises OptionError."""
    name = name.strip().lower()
    if name in LANGUAGES:
        return name
    codes = {full: code for code, full in LANGUAGES.items()} | ALIASES
    if name in codes:
        return codes[name]
    raise OptionError(f"unknown language {name!r}: {_instead(name, codes)}")


def _instead(name: str, codes: dict[str, str]) -> str:
    known = codes | OWN_NAMES
    alike = get_close_matches(name, known, n=1, cutoff=0.7)
    # en-US, pt_br and the like begin with their code
    code = known[alike[0]] if alike else re.split("[-_]", name)[0]
    if code in LANGUAGES:
        return f"did you mean {code} ({LANGUAGES[code].title()})?"
    return "use a code such as en, de, zh or an English name"
