"""The words by which quotes, forwarded messages and signatures of programs are known, in the languages of the common
mail programs. All in lower case."""

from __future__ import annotations

from typing import Literal

Role = Literal["from", "date", "to", "cc", "subject"]

_ROLES: tuple[Role, ...] = ("from", "date", "to", "cc", "subject")
# Of each language: From, Date, To, Cc, Subject, as the header above a quoted message calls them.
_HEADERS = {
    "ar": "من | تاريخ الإرسال, التاريخ, إرسال | إلى | نسخة | الموضوع",
    "bg": "от | изпратено, дата | до | копие, cc | относно, тема",
    "ca": "de | enviat, data | per a, a | cc | assumpte",
    "cs": "od | odesláno, datum | komu | kopie, cc | předmět",
    "da": "fra | sendt, dato | til | cc | emne",
    "de": "von | gesendet, gesendet am, datum | an | cc, kopie, bcc | betreff",
    "el": "από | στάλθηκε, εστάλη, ημερομηνία | προς | κοιν., cc | θέμα",
    "en": "from | sent, date | to | cc, bcc | subject",
    "es": "de | enviado, enviado el, enviada, fecha | para | cc | asunto",
    "et": "saatja, kellelt | saadetud, saatmisaeg, kuupäev | kellele, adressaat | koopia, cc | teema",
    "fi": "lähettäjä | lähetetty, päivämäärä, päiväys | vastaanottaja | kopio, cc | aihe",
    "fr": "de, expéditeur | envoyé, envoyé le, date | à, a, pour, destinataire | cc, copie à | objet, sujet",
    "he": "מאת | נשלח, תאריך | אל | עותק | נושא",
    "hr": "od, šalje | poslano, poslato, datum | za, prima | kopija, cc | predmet, naslov",
    "hu": "feladó | elküldve, küldve, dátum | címzett | másolatot kap, cc | tárgy",
    "id": "dari | dikirim, tanggal | kepada, untuk | cc | subjek, perihal",
    "it": "da, mittente | inviato, data | a | cc | oggetto",
    "ja": "差出人, from | 送信日時, 日時, 日付, sent | 宛先, to | cc | 件名, subject",
    "ko": "보낸 사람, 보낸사람 | 보낸 날짜, 보낸날짜, 날짜 | 받는 사람, 받는사람 | 참조 | 제목",
    "lt": "nuo, siuntėjas | išsiųsta, data | kam, gavėjas | kopija, cc | tema",
    "lv": "no | nosūtīts, datums | kam, uz | kopija, cc | temats, tēma",
    "nb": "fra | sendt, dato | til | kopi, cc | emne",
    "nl": "van | verzonden, datum | aan | cc, kopie | onderwerp",
    "pl": "od, nadawca | wysłano, data | do, adresat | dw, cc | temat",
    "pt": "de | enviado, enviada, enviado em, enviada em, data | para | cc | assunto",
    "ro": "de la, expeditorul | trimis, data, dată | către, catre, la, destinatarul | cc | subiect, subiectul",
    "ru": "от, от кого, отправитель | отправлено, дата | кому | копия, cc | тема",
    "sk": "od | odoslané, dátum | komu, pre | kópia, cc | predmet",
    "sl": "od | poslano, datum | za | kp, cc | zadeva",
    "sv": "från | skickat, datum | till | kopia, cc | ämne",
    "th": "จาก | ส่ง, วันที่ | ถึง | สำเนา | เรื่อง, หัวเรื่อง",
    "tr": "kimden, gönderen | gönderildi, gönderme tarihi, tarih | kime, alıcı | bilgi, cc | konu",
    "uk": "від, від кого | надіслано, дата | кому | копія, cc | тема",
    "vi": "từ | đã gửi, ngày | đến, tới | cc | chủ đề",
    "zh": "发件人, 寄件人, 寄件者 | 发送时间, 日期, 寄件日期, 傳送時間 | 收件人, 收件者 | 抄送, 副本 | 主题, 主旨",
}


def _fields() -> dict[str, dict[str, Role]]:
    found: dict[str, dict[str, Role]] = {}
    for language, row in _HEADERS.items():
        for role, names in zip(_ROLES, row.split("|"), strict=True):
            for name in names.split(","):
                found.setdefault(name.strip(), {})[language] = role
    return found


FIELDS = _fields()
"""Name of a field -> language -> what it holds."""
LONGEST_FIELD = max(map(len, FIELDS))

WROTE = (
    "wrote", "writes", "schrieb", "schreibt", "geschrieben", "écrit", "ecrit", "escribió", "escribio", "scritto",
    "scrive", "escreveu", "schreef", "geschreven", "skrev", "skriver", "kirjoitti", "napisał", "pisze", "napsal",
    "napísal", "írta", "irta", "a scris", "написал", "пишет", "пише", "написав", "написа", "έγραψε", "yazdı", "napisao",
    "napisala", "je napisal", "piše", "kirjutas", "rakstīja", "raksta", "parašė", "rašė", "写道", "寫道", "书写",
    "のメール", "書きました", "작성", "님이", "كتب", "כתב", "đã viết", "menulis", "เขียน", "va escriure",
)  # fmt: skip
"""What a line above a quote says that somebody did."""

OPENINGS = (
    "on ", "am ", "le ", "el ", "il ", "em ", "op ", "den ", "dne ", "dnia ", "w dniu ", "dňa ", "at ", "în ", "pe ",
    "la ", "vào ", "pada ", "tarihinde", "στις ", "на ", "в ", "a(z) ", "ar ", "in message ", "quoting ", "zitat von",
    "在", "於", "في ", "ב", "dana ", "dne ", "kuupäev", "il giorno ", "el día ", "em ter", "mensaje ", "\"", "'",
)  # fmt: skip
"""How such a line begins, if it does not begin with a number or a name."""

ORIGINAL = frozenset(
    ("original message", "reply message", "original email", "original mail", "message d'origine", "message original",
     "ursprüngliche nachricht", "originalnachricht", "original-nachricht", "antwort-nachricht", "mensaje original",
     "messaggio originale", "messaggio originario", "mensagem original", "oorspronkelijk bericht",
     "oorspronkelijke bericht", "originalmeddelande", "ursprungligt meddelande", "oprindelig meddelelse",
     "original meddelelse", "opprinnelig melding", "alkuperäinen viesti", "wiadomość oryginalna",
     "oryginalna wiadomość", "původní zpráva", "originální zpráva", "pôvodná správa", "eredeti üzenet",
     "mesaj original", "mesajul original", "исходное сообщение", "оригинальное сообщение", "первоначальное сообщение",
     "вихідне повідомлення", "оригинално съобщение", "αρχικό μήνυμα", "özgün ileti", "orijinal mesaj",
     "originalna poruka", "izvorna poruka", "izvirno sporočilo", "algne kiri", "algne sõnum",
     "sākotnējais ziņojums", "pradinis laiškas", "原始邮件", "原始郵件", "邮件原件", "元のメッセージ",
     "オリジナルメッセージ", "원본 메시지", "원본 메일", "الرسالة الأصلية", "הודעה מקורית", "thư gốc",
     "pesan asli", "missatge original", "ข้อความต้นฉบับ")
)  # fmt: skip
"""Between dashes, above the mail that is answered."""

FORWARDED = frozenset(
    ("forwarded message", "forwarded mail", "forwarded email", "begin forwarded message", "start of forwarded message",
     "weitergeleitete nachricht", "anfang der weitergeleiteten nachricht", "anfang der weitergeleiteten e-mail",
     "message transféré", "message transmis", "message réexpédié", "courriel transféré",
     "début du message réexpédié", "début du message transféré", "mensaje reenviado", "inicio del mensaje reenviado",
     "messaggio inoltrato", "inizio messaggio inoltrato", "mensagem encaminhada", "mensagem reencaminhada",
     "início da mensagem encaminhada", "início da mensagem reencaminhada", "doorgestuurd bericht",
     "begin doorgestuurd bericht", "vidarebefordrat meddelande", "vidarebefordrat mejl",
     "videresendt meddelelse", "start på videresendt besked", "videresendt melding", "videresendt besked",
     "edelleenlähetetty viesti", "välitetty viesti", "välitetty viesti alkaa", "välitetty viesti / fwd.msg",
     "przekazana wiadomość", "wiadomość przekazana dalej", "treść przekazanej wiadomości",
     "początek przekazywanej wiadomości", "přeposlaná zpráva", "začátek přeposílané zprávy", "preposlaná správa",
     "začiatok preposlanej správy", "továbbított üzenet", "továbbított levél kezdete", "mesaj redirecționat",
     "începe mesajul redirecționat", "mesaj redirecţionat", "пересылаемое сообщение", "перенаправленное сообщение",
     "пересланное сообщение", "начало переадресованного сообщения", "переслане повідомлення",
     "перенаправлене повідомлення", "початок листа, що пересилається", "препратено съобщение",
     "προωθημένο μήνυμα", "iletilmiş mesaj", "iletilen ileti", "yönlendirilen ileti", "ileti başlangıcı",
     "i̇letilmiş mesaj", "i̇letilen i̇leti", "i̇leti başlangıcı", "proslijeđena poruka", "započni proslijeđenu poruku",
     "prosleđena poruka", "posredovano sporočilo", "edastatud kiri", "edastatud sõnum", "pārsūtīts ziņojums",
     "pārsūtītā ziņa", "persiųstas laiškas", "转发的邮件", "转发邮件", "轉寄郵件", "轉寄的郵件", "転送メッセージ",
     "転送されたメッセージ", "전달된 메시지", "전달된 메일", "رسالة معاد توجيهها", "הודעה שהועברה",
     "thư đã chuyển tiếp", "pesan terusan", "missatge reenviat", "ข้อความที่ส่งต่อ")
)  # fmt: skip
"""Above a mail that is forwarded: between dashes, or before a colon."""

FORWARD_SUBJECTS = (
    "fw:", "fwd:", "wg:", "tr:", "rv:", "enc:", "vs:", "vb:", "pd:", "i:", "doorst:", "fs:", "vl:", "trs:", "redir.:",
    "továbbítás:", "videresend:", "ilt:", "i̇lt:", "fwd :", "fw :", "tr :", "fwd：", "转发:", "转发：", "轉寄:",
    "轉寄：", "전달:", "転送:", "przekazane:", "пересл:", "fwd.:",
)  # fmt: skip
"""How the subject of a forwarded mail begins."""

SENT_FROM = (
    "sent from ", "sent via ", "sent with ", "sent using ", "get outlook for ", "from my ", "von meinem ", "von mobil ",
    "gesendet von ", "gesendet mit ", "gesendet über ", "diese nachricht wurde von ", "envoyé de ", "envoyé depuis ",
    "envoyé avec ", "envoyé à partir de ", "envoyé par ", "enviado desde ", "enviado do ", "enviado de ",
    "enviado a partir d", "enviado via ", "enviado con ", "inviato da", "inviato con ", "verzonden vanaf ",
    "verzonden met ", "verzonden via ", "verstuurd vanaf ", "skickat från ", "skickat med ", "sendt fra ", "sendt via ",
    "lähetetty ", "wysłane z ", "wysłano z ", "odesláno z ", "odoslané z ", "elküldve ", "küldve ", "trimis de pe ",
    "trimis din ", "trimis de la ", "отправлено с ", "отправлено из ", "надіслано з ", "изпратено от ", "στάλθηκε από ",
    "poslano s ", "poslano z ", "poslano iz ", "poslato sa ", "saadetud ", "nosūtīts no ", "išsiųsta iš ", "发自我的",
    "發自我的", "從我的", "从我的", "나의 ", "أرسل من ", "أُرسلت من ", "נשלח מה", "được gửi từ ", "dikirim dari ",
    "enviat des de ", "outlook für ", "outlook pour ", "obtener outlook para ", "obtenez outlook pour ",
    "holen sie sich outlook", "télécharger outlook", "iphone", "ipad", "android",
)  # fmt: skip
"""How the line begins that a telephone or a program puts under every mail; some languages begin with what it is."""
DEVICES = (
    "iphone", "ipad", "android", "samsung", "galaxy", "huawei", "xiaomi", "redmi", "nokia", "pixel", "blackberry",
    "outlook", "mail", "gmx", "web.de", "mobil", "móvil", "phone", "telefon", "téléphone", "teléfono", "celular",
    "smartphone", "handy", "tablet", "device", "gerät", "puhelin", "телефон", "мобил", "устройств", "пристро", "手机",
    "手機", "전화", "هاتف", "cihaz", "τηλέφωνο", "κινητό", "điện thoại", "ponsel", "windows",
)  # fmt: skip
"""One of these is in it."""
