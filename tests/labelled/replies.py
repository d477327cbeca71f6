"""Texts of mails, each in the pieces that it is made of, by kind and language.

``texts()`` gives (kind, language, pieces): a piece is what it is (``reply``, ``quoted``, ``signature``) and its words;
together they are the text. All of them are made up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

Piece = tuple[Literal["reply", "quoted", "signature"], str]
Labelled = tuple[str, str, tuple[Piece, ...]]

# Language: an answer, what it answers.
WORDS = {
    "ar": ("نعم، هذا صحيح.", "هل وصل الطلب؟"),
    "bg": ("Да, получих го.\nБлагодаря", "Пристигна ли поръчката?"),
    "cs": ("Ano, došlo to.\nDěkuji", "Dorazila objednávka?"),
    "da": ("Ja, det er kommet.\nTak", "Er ordren kommet?"),
    "de": ("Ja, sie ist da.\n\nViele Grüße\nJana", "Ist die Bestellung da?"),
    "el": ("Ναι, ήρθε.\nΕυχαριστώ", "Ήρθε η παραγγελία;"),
    "en": ("Yes, it arrived yesterday.\n\nThanks,\nJane", "Did the order arrive?"),
    "es": ("Sí, ya llegó.\n\nGracias", "¿Llegó el pedido?"),
    "et": ("Jah, see jõudis kohale.", "Kas tellimus jõudis kohale?"),
    "fi": ("Kyllä, se tuli.\nKiitos", "Saapuiko tilaus?"),
    "fr": ("Oui, c'est arrivé.\n\nMerci", "La commande est-elle arrivée ?"),
    "he": ("כן, זה הגיע.", "האם ההזמנה הגיעה?"),
    "hu": ("Igen, megjött.\nKöszönöm", "Megérkezett a rendelés?"),
    "id": ("Ya, sudah sampai.", "Apakah pesanan sudah sampai?"),
    "it": ("Sì, è arrivato.\n\nGrazie", "È arrivato l'ordine?"),
    "ja": ("はい、届きました。", "注文は届きましたか。"),
    "ko": ("네, 도착했습니다.", "주문이 도착했습니까?"),
    "lt": ("Taip, gavau.", "Ar gavote užsakymą?"),
    "lv": ("Jā, saņēmu.", "Vai pasūtījums ir saņemts?"),
    "nb": ("Ja, den kom i går.", "Har bestillingen kommet?"),
    "nl": ("Ja, het is er.\n\nGroet", "Is de bestelling er?"),
    "pl": ("Tak, dotarło.\nDziękuję", "Czy zamówienie dotarło?"),
    "pt": ("Sim, chegou.\nObrigada", "O pedido chegou?"),
    "ro": ("Da, a ajuns.\nMulțumesc", "A ajuns comanda?"),
    "ru": ("Да, получили.\nСпасибо", "Заказ пришёл?"),
    "sk": ("Áno, prišlo to.", "Prišla objednávka?"),
    "sl": ("Da, prišlo je.", "Je naročilo prišlo?"),
    "sv": ("Ja, den kom i går.\nTack", "Har beställningen kommit?"),
    "th": ("ได้รับแล้วค่ะ", "ได้รับสินค้าหรือยัง"),
    "tr": ("Evet, geldi.\nTeşekkürler", "Sipariş geldi mi?"),
    "uk": ("Так, отримали.", "Замовлення прийшло?"),
    "vi": ("Vâng, đã nhận được.", "Đơn hàng đã đến chưa?"),
    "zh": ("收到了，谢谢。", "订单收到了吗？"),
}
# How mail programs say who wrote what they quote.
ATTRIBUTIONS = {
    "bg": "На пн, 4.03.2024 г. в 10:05 ч. Support <support@example.com> написа:",
    "cs": "Dne po 4. 3. 2024 v 10:05 odesílatel Support <support@example.com> napsal:",
    "da": "Den man. 4. mar. 2024 kl. 10.05 skrev Support <support@example.com>:",
    "de": "Am Mo., 4. März 2024 um 10:05 Uhr schrieb Support <\nsupport@example.com>:",
    "el": "Στις Δευ 4 Μαρ 2024 στις 10:05 π.μ., ο/η Support <support@example.com> έγραψε:",
    "en": "On Mon, Mar 4, 2024 at 10:05 AM Support at Example <support@example.com>\nwrote:",
    "es": "El lun, 4 mar 2024 a las 10:05, Support (<support@example.com>) escribió:",
    "et": "Kuupäev E, 4. märts 2024 kell 10:05 kirjutas Support (<support@example.com>):",
    "fi": "ma 4. maalisk. 2024 klo 10.05 Support (support@example.com) kirjoitti:",
    "fr": "Le lun. 4 mars 2024 à 10:05, Support <support@example.com> a écrit :",
    "he": "‫בתאריך יום ב׳, 4 במרץ 2024 ב-10:05 מאת ‪Support‬‏ <‪support@example.com‬‏>:‬",
    "hu": "Support <support@example.com> ezt írta (időpont: 2024. márc. 4., H, 10:05):",
    "id": "Pada tanggal Sen, 4 Mar 2024 pukul 10.05 Support <support@example.com> menulis:",
    "it": "Il giorno lun 4 mar 2024 alle ore 10:05 Support <support@example.com> ha\nscritto:",
    "ja": "2024年3月4日(月) 10:05 Support <support@example.com>:",
    "ko": "2024년 3월 4일 (월) 오전 10:05, Support <support@example.com>님이 작성:",
    "lt": "2024-03-04, pr, 10:05 Support <support@example.com> rašė:",
    "lv": "pirmd., 2024. g. 4. marts, plkst. 10:05 — lietotājs Support (<support@example.com>) rakstīja:",
    "nb": "man. 4. mars 2024 kl. 10:05 skrev Support <support@example.com>:",
    "nl": "Op ma 4 mrt 2024 om 10:05 schreef Support <support@example.com>:",
    "pl": "pon., 4 mar 2024 o 10:05 Support <support@example.com> napisał(a):",
    "pt": "Em seg., 4 de mar. de 2024 às 10:05, Support <support@example.com>\nescreveu:",
    "ro": "În lun., 4 mar. 2024 la 10:05, Support <support@example.com> a scris:",
    "ru": "пн, 4 мар. 2024 г. в 10:05, Support <support@example.com>:",
    "sk": "po 4. 3. 2024 o 10:05 Support <support@example.com> napísal(a):",
    "sl": "V V pon., 4. mar. 2024 ob 10:05 je oseba Support <support@example.com> napisala:",
    "sv": "Den mån 4 mars 2024 kl 10:05 skrev Support <support@example.com>:",
    "th": "ในวันที่ จ. 4 มี.ค. 2024 เวลา 10:05 Support <support@example.com> เขียนว่า:",
    "tr": "Support <support@example.com>, 4 Mar 2024 Pzt, 10:05 tarihinde şunu yazdı:",
    "uk": "пн, 4 бер. 2024 р. о 10:05 Support <support@example.com> пише:",
    "vi": "Vào Th 2, 4 thg 3, 2024 vào lúc 10:05 Support <support@example.com> đã viết:",
    "zh": "Support <support@example.com> 于2024年3月4日周一 10:05写道：",
}
# The header that Outlook puts above what it quotes: From, Sent, To, Subject, and a date.
HEADERS = {
    "ar": ("من", "تاريخ الإرسال", "إلى", "الموضوع", "04 مارس 2024 10:05"),
    "cs": ("Od", "Odesláno", "Komu", "Předmět", "pondělí 4. března 2024 10:05"),
    "da": ("Fra", "Sendt", "Til", "Emne", "4. marts 2024 10:05"),
    "de": ("Von", "Gesendet", "An", "Betreff", "Montag, 4. März 2024 10:05"),
    "el": ("Από", "Στάλθηκε", "Προς", "Θέμα", "Δευτέρα, 4 Μαρτίου 2024 10:05"),
    "en": ("From", "Sent", "To", "Subject", "Monday, March 4, 2024 10:05 AM"),
    "es": ("De", "Enviado", "Para", "Asunto", "lunes, 4 de marzo de 2024 10:05"),
    "fi": ("Lähettäjä", "Lähetetty", "Vastaanottaja", "Aihe", "maanantai 4. maaliskuuta 2024 10.05"),
    "fr": ("De", "Envoyé", "À", "Objet", "lundi 4 mars 2024 10:05"),
    "hu": ("Feladó", "Elküldve", "Címzett", "Tárgy", "2024. március 4., hétfő 10:05"),
    "it": ("Da", "Inviato", "A", "Oggetto", "lunedì 4 marzo 2024 10:05"),
    "ja": ("差出人", "送信日時", "宛先", "件名", "2024年3月4日 10:05"),
    "ko": ("보낸 사람", "보낸 날짜", "받는 사람", "제목", "2024년 3월 4일 월요일 오전 10:05"),
    "lv": ("No", "Nosūtīts", "Kam", "Temats", "pirmdiena, 2024. gada 4. marts 10:05"),
    "nb": ("Fra", "Sendt", "Til", "Emne", "mandag 4. mars 2024 10:05"),
    "nl": ("Van", "Verzonden", "Aan", "Onderwerp", "maandag 4 maart 2024 10:05"),
    "pl": ("Od", "Wysłano", "Do", "Temat", "poniedziałek, 4 marca 2024 10:05"),
    "pt": ("De", "Enviado", "Para", "Assunto", "segunda-feira, 4 de março de 2024 10:05"),
    "ro": ("De la", "Trimis", "Către", "Subiect", "luni, 4 martie 2024 10:05"),
    "ru": ("От", "Отправлено", "Кому", "Тема", "4 марта 2024 г. 10:05"),
    "sv": ("Från", "Skickat", "Till", "Ämne", "den 4 mars 2024 10:05"),
    "tr": ("Kimden", "Gönderildi", "Kime", "Konu", "4 Mart 2024 Pazartesi 10:05"),
    "uk": ("Від", "Надіслано", "Кому", "Тема", "4 березня 2024 р. 10:05"),
    "zh": ("发件人", "发送时间", "收件人", "主题", "2024年3月4日 10:05"),
}
TELEPHONES = {
    "cs": "Odesláno z iPhonu (iPhone)",
    "da": "Sendt fra min iPhone",
    "de": "Von meinem iPhone gesendet",
    "en": "Sent from my iPhone",
    "es": "Enviado desde mi iPhone",
    "fi": "Lähetetty iPhonesta",
    "fr": "Envoyé de mon iPhone",
    "hu": "iPhone-omról küldve",
    "it": "Inviato da iPhone",
    "ja": "iPhoneから送信",
    "ko": "나의 iPhone에서 보냄",
    "lv": "Nosūtīts no mana iPhone",
    "nl": "Verstuurd vanaf mijn iPhone",
    "pl": "Wysłane z iPhone'a",
    "pt": "Enviado do meu iPhone",
    "ru": "Отправлено с iPhone",
    "sv": "Skickat från min iPhone",
    "tr": "iPhone'umdan gönderildi",
    "zh": "发自我的 iPhone",
}
FORWARDS = {
    "cs": "-------- Přeposlaná zpráva --------",
    "de": "-------- Weitergeleitete Nachricht --------",
    "en": "---------- Forwarded message ---------",
    "es": "-------- Mensaje reenviado --------",
    "fr": "-------- Message transféré --------",
    "it": "-------- Messaggio inoltrato --------",
    "nl": "-------- Doorgestuurd bericht --------",
    "pl": "--- Treść przekazanej wiadomości ---",
    "pt": "-------- Mensagem encaminhada --------",
    "ru": "-------- Перенаправленное сообщение --------",
}


def texts() -> list[Labelled]:
    """All of them."""
    return [
        *_top_posted(), *_under_a_header(), *_of_telephones(), *_forwarded(),
        *_below(), *_between(), *_signed(), *_of_people(), *_of_programs(),
    ]  # fmt: skip


def marked(text: str) -> str:
    return "".join(f"> {line}\n" for line in text.split("\n"))


def header(language: str) -> str:
    sender, sent, to, subject, date = HEADERS[language]
    return (
        f"{sender}: Support <support@example.com>\n{sent}: {date}\n{to}: Jane Doe <jane@example.org>\n{subject}: 4711\n"
    )


def _top_posted() -> Iterator[Labelled]:
    for language, line in ATTRIBUTIONS.items():
        own, other = WORDS[language]
        yield "above a quote", language, (("reply", f"{own}\n\n"), ("quoted", f"{line}\n\n{marked(other)}"))


def _under_a_header() -> Iterator[Labelled]:
    for language in HEADERS:
        own, other = WORDS[language]
        yield "above a header", language, (("reply", f"{own}\n\n"), ("quoted", f"{header(language)}\n{other}\n"))


def _of_telephones() -> Iterator[Labelled]:
    for language, line in TELEPHONES.items():
        own, other = WORDS[language]
        yield "from a telephone", language, (("reply", f"{own}\n\n"), ("signature", f"{line}\n"))
        if language in ATTRIBUTIONS:
            quote = f"{ATTRIBUTIONS[language]}\n\n{marked(other)}"
            yield (
                "from a telephone", language, (("reply", f"{own}\n\n"), ("signature", f"{line}\n\n"), ("quoted", quote))
            )  # fmt: skip


def _forwarded() -> Iterator[Labelled]:
    for language, line in FORWARDS.items():
        own, other = WORDS[language]
        quoted = f"{line}\n{header(language)}\n{other}\n"
        yield "forwarded", language, (("reply", f"{own}\n\n"), ("quoted", quoted))
        yield "forwarded without a word", language, (("reply", quoted),)


def _below() -> Iterator[Labelled]:
    for language in ("en", "de", "fr", "pl", "nl", "sv", "zh"):
        own, other = WORDS[language]
        quoted = f"{ATTRIBUTIONS[language]}\n{marked(other)}\n"
        yield "below a quote", language, (("quoted", quoted), ("reply", f"{own}\n"))
        yield (
            "below a quote", language, (("quoted", quoted), ("reply", f"{own}\n\n"), ("signature", "-- \nJane\n"))
        )  # fmt: skip


def _between() -> Iterator[Labelled]:
    for language in ("en", "de", "es", "it", "ru", "ja"):
        own, other = WORDS[language]
        line = ATTRIBUTIONS[language]
        text = f"{line}\n\n{marked(other)}\n{own}\n\n{marked(other)}\n{own}\n"
        yield "between quotes", language, (("reply", text),)
        yield "between quotes", language, (("reply", f"Hi,\n\n{text}"),)


def _signed() -> Iterator[Labelled]:
    for language in ("en", "de", "fr", "ru"):
        own, other = WORDS[language]
        quote = f"{ATTRIBUTIONS[language]}\n{marked(other)}"
        sign = "-- \nJane Doe\nExample Ltd.\nhttps://example.org/\n"
        yield "signed", language, (("reply", f"{own}\n\n"), ("signature", sign))
        yield "signed", language, (("reply", f"{own}\n\n"), ("signature", f"{sign}\n"), ("quoted", quote))
        yield "signed", language, (("reply", f"{own}\n\n"), ("quoted", f"{quote}\n"), ("signature", sign))
    own, other = WORDS["en"]
    footer = "_" * 47 + "\nlist mailing list\nlist@lists.example.org\n"
    yield (
        "signed", "en",
        (("reply", f"{own}\n\n"), ("quoted", f"{ATTRIBUTIONS['en']}\n{marked(other)}\n"), ("signature", footer)),
    )  # fmt: skip
    yield "signed", "en", (("reply", f"{own}\n\n"), ("signature", "--\nJane Doe\n"))
    yield "signed", "en", (("reply", "-- \nJane Doe\n"),)


def _of_people() -> Iterator[Labelled]:
    """What only looks like a quote, a header or a signature."""
    for language, text in (
        ("en", "On Monday I wrote: it does not work.\nSince then nobody has answered.\n"),
        ("en", "On Monday, March 4, 2024 I wrote:\n\nIt does not work.\n\nPlease answer.\n"),
        ("en", "I want to travel.\nFrom: Berlin\nTo: Paris\nDate: March 4, 2024, 10:05\nTwo persons.\n"),
        ("en", "Name: Jane Doe\nOrder: 4711\nDate: March 4\nSubject: return\nMessage:\nIt is broken.\n"),
        ("en", "The steps:\n\n-- first\n-- second\n-- third\n\nand then it fails with:\n\nError: 5\nAt: line 3\n"),
        ("en", "Please send it to jane@example.org before 10:30:\n\n- the invoice\n- the receipt\n"),
        ("en", "It was sent from my old address.\nSent from Berlin, never arrived\n"),
        ("en", "See below:\n\n----------\ntotal 17\n----------\n\nIs that right?\n"),
        ("de", "Von: Hamburg\nNach: Bremen\nDatum: 4.3.2024\n\nBitte buchen.\n"),
        ("de", "Am 4.3.2024 um 10:05 schrieb ich Ihnen Folgendes:\n\nDer Zähler steht.\n\nBitte antworten.\n"),
        ("de", "Das Paket wurde gestern gesendet.\nEs ist von meinem Bruder gesendet worden\n"),
        ("fr", "De : Paris\nÀ : Lyon\nDate : 4 mars\n\nMerci de réserver.\n"),
        ("es", "De: Madrid\nPara: dos personas\nFecha: 4 de marzo\n\nGracias\n"),
        ("en", "> all of this\n> is quoted\n"),
        ("en", "a > b\n\nand b > c: 1\nso: 2\nand: 3\n"),
        ("en", "Hello,\n\nthe program printed\n\n>>> import this\n\nand nothing else.\n"),
    ):
        yield "a person's own", language, (("reply", text),)


def _of_programs() -> Iterator[Labelled]:
    own, other = WORDS["en"]
    outlook = f"{'_' * 32}\n{header('en')}\n{other}\n"
    for quoted in (
        outlook,
        f"-----Original Message-----\n{header('en')}\n{other}\n",
        f"-----Original Message-----\n\n{other}\n",
        "*From:* Support <support@example.com>\n*Sent:* Monday, March 4, 2024 10:05 AM\n*To:* Jane\n*Subject:* x\n"
        f"\n{other}\n",
        "From: Support <support@example.com>\nSent: Monday, March 4, 2024 10:05 AM\nTo: Jane Doe <jane@example.org>;\n"
        f" John Doe <john@example.org>;\n Joe <joe@example.org>\nCc: Ann\nSubject: x\n\n{other}\n",
        f"From: Support\nDate: Mon, 4 Mar 2024 10:05:00 +0100\nTo: Jane\nSubject: x\n\n{other}\n",
        f"On Monday, March 4, 2024 at 10:05:00 AM GMT+1, Support <support@example.com> wrote:\n\n\n{other}\n",
        f"On 3/4/24 10:05, Support wrote:\n{marked(other)}",
        f"Support wrote:\n\n{marked(other)}",
        f"On Mon, Mar 04, 2024 at 10:05:00AM +0100, Support wrote:\n{marked(other)}{marked('> ' + other)}",
        f"In message <x@example.com> Support writes:\n{marked(other)}",
        f"Quoting Support <support@example.com>:\n\n{marked(other)}",
        f"2024-03-04 10:05 GMT+01:00 Support <support@example.com>:\n\n{marked(other)}",
        marked(other),
        f"On 3/4/24 10:05, Support wrote:\n> {'word ' * 15}\nbroken\n> and more\n",
        f"> On Mar 4, 2024, at 10:05 AM, Support <support@example.com> wrote:\n> \n{marked(other)}",
    ):
        yield "of many programs", "en", (("reply", f"{own}\n\n"), ("quoted", quoted))
    own, other = WORDS["de"]
    for quoted in (
        f"-----Ursprüngliche Nachricht-----\nVon: Support [mailto:support@example.com] \n"
        f"Gesendet: Montag, 4. März 2024 10:05\nAn: Jana\nBetreff: x\n\n{other}\n",
        f'Gesendet: Montag, 04. März 2024 um 10:05 Uhr\nVon: "Support" <support@example.com>\nAn: jana@example.org\n'
        f"Betreff: x\n\n{other}\n",
        f"Am 04.03.24 um 10:05 schrieb Support:\n{marked(other)}",
        f"Support <support@example.com> schrieb am Mo., 4. März 2024, 10:05:\n\n{marked(other)}",
    ):
        yield "of many programs", "de", (("reply", f"{own}\n\n"), ("quoted", quoted))
