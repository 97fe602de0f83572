"""Character cards V1 to V3: what describes a role, and example dialogues as one text; tools.convert reads them."""
import base64
import binascii
import re


def png_texts(data):
    """{keyword: text} of the tEXt chunks of a PNG file's bytes."""
    texts = {}
    position = 8                                                         # after the signature
    while position + 8 <= len(data):
        length = int.from_bytes(data[position:position + 4], "big")
        kind = data[position + 4:position + 8]
        if kind == b"tEXt":
            keyword, _, text = data[position + 8:position + 8 + length].partition(b"\0")
            texts[keyword.decode("latin-1")] = text
        position += length + 12                                          # with the length, the kind and the checksum
    return texts


def card_in_png(data, path):
    """The JSON bytes of the card in a PNG file's bytes: of V3 if it is there, else of V2. ValueError without a card."""
    texts = png_texts(data)
    card = texts.get("ccv3") or texts.get("chara")
    if not card:
        raise ValueError(f"{path} holds no character card: it has no text named ccv3 or chara")
    try:
        return base64.b64decode(card)
    except binascii.Error as e:
        raise ValueError(f"{path}: its card is not base64 ({e})") from None


def read_card(card, user):
    """(name, profile, [turns of an example dialogue]) of a character card's fields."""
    def field(key):
        text = card.get(key) if isinstance(card.get(key), str) else ""
        for placeholder, name in ((r"\{\{char\}\}|<bot>", card["name"]), (r"\{\{user\}\}|<user>", user)):
            text = name.join(re.split(f"(?i){placeholder}", text))       # to re.sub a \ in a name would be a command
        return text.strip()

    names = {user: "user", card["name"]: "assistant"}
    pattern = "|".join(map(re.escape, names))
    dialogues = []
    for block in re.split(r"(?i)<start>", field("mes_example")):
        parts = re.split(rf"^({pattern}):", block, flags=re.M)           # text, name, text, name, text ...
        dialogues.append([(names[name], text.strip()) for name, text in zip(parts[1::2], parts[2::2])])
    profile = " ".join(field(key) for key in ("description", "personality", "scenario"))
    return card["name"].strip(), " ".join(profile.split()), dialogues
