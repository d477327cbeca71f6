"""Further mails of every class, written down before anything was tried on them: other servers, lists and languages."""

from __future__ import annotations

from collections.abc import Iterator

from labelled.bounces import COPY, TEXT
from labelled.made import mail, multipart

Fields = dict[str, str | None]

_DAEMON: Fields = {"Return_Path": "<>", "From": "MAILER-DAEMON@mx.example.net"}
_STATUS = (
    "Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\n"
    "Final-Recipient: rfc822; joe@example.net\nAction: failed\nStatus: 5.1.1\n"
)
_RFC822 = f"Content-Type: message/rfc822\n\n{COPY}"
_MIXED = "multipart/mixed; boundary=b"
_REPORT = "multipart/report; boundary=b; report-type="

_BOUNCES: dict[str, tuple[str, Fields]] = {
    "qmail-text": (
        "Hi. This is the qmail-send program at mx.example.net.\nI'm afraid I wasn't able to deliver your message to "
        "the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n"
        "<joe@example.net>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n--- Below this line is a copy of the "
        f"message.\n\n{COPY}",
        {**_DAEMON, "Subject": "failure notice"},
    ),
    "exim-text": (
        "This message was created automatically by mail delivery software.\n\nA message that you sent could not be "
        "delivered to one or more of its\nrecipients. This is a permanent error. The following address(es) failed:\n\n"
        "  joe@example.net\n    host mx.example.net [192.0.2.7]\n    SMTP error from remote mail server after RCPT "
        "TO:<joe@example.net>:\n    550 5.1.1 User unknown\n\n------ This is a copy of the message, including all "
        f"the headers. ------\n\n{COPY}",
        {
            "From": "Mail Delivery System <Mailer-Daemon@mx.example.net>",
            "X_Failed_Recipients": "joe@example.net",
            "Auto_Submitted": "auto-replied",
            "Subject": "Mail delivery failed: returning message to sender",
        },
    ),
    "exim-frozen": (
        "This message was created automatically by mail delivery software.\nThe message identifier is: "
        "1abc-2def\n\nThe address to which the message has not yet been delivered is:\n\n"
        "  joe@example.net\n    Delay reason: Connection timed out\n\nNo action is required on your part.\n",
        {
            "From": "Mail Delivery System <Mailer-Daemon@mx.example.net>",
            "Auto_Submitted": "auto-replied",
            "Subject": "Warning: message 1abc-2def delayed 24 hours",
        },
    ),
    "courier": (
        multipart(
            "report", TEXT.format("This is a delivery status notification from mx.example.net."), _STATUS, _RFC822
        ),
        {
            "Return_Path": "<>",
            "From": '"Courier mail server at mx.example.net" <@mx.example.net>',
            "Subject": "NOTICE: mail delivery status.",
            "Content_Type": _REPORT + "delivery-status",
        },
    ),
    "domino": (
        multipart(
            "report",
            TEXT.format(
                "Your message\n\n  Subject: Your ticket 4711\n\nwas not delivered to:"
                "\n\n  joe@example.net\n\nbecause:\n\n  User joe not listed"
            ),
            _STATUS,
        ),
        {
            "From": "Mail Router@mx.example.net",
            "Content_Type": _REPORT + "delivery-status",
            "Subject": "DELIVERY FAILURE: User joe (joe@example.net) not listed in Domino Directory",
        },
    ),
    "groupwise": (
        multipart(
            "mixed",
            TEXT.format(
                "The message that you sent was undeliverable to the following:\n\tjoe@example.net (user not found)\n"
            ),
            _RFC822,
        ),
        {
            "From": "Mailer-Daemon@gw.example.net",
            "Subject": "Message status - undeliverable",
            "Content_Type": _MIXED,
            "X_Mailer": "Novell GroupWise Internet Agent 8.0.2",
        },
    ),
    "mimecast": (
        "Your message to joe@example.net with subject 'Your ticket 4711' was rejected."
        "\n550 Rejected by header based manually Blocked Senders\n",
        {
            "From": "postmaster@example.net",
            "Subject": "[Postmaster] Email Delivery Failure",
            "Auto_Submitted": "auto-generated",
        },
    ),
    "barracuda": (
        "Your message to: joe@example.net\nwas blocked by our Spam Firewall. The email you sent with the "
        "following subject has NOT BEEN DELIVERED:\n\nSubject: Your ticket 4711\n",
        {
            "From": "Barracuda Spam Firewall <postmaster@mx.example.net>",
            "Return_Path": "<>",
            "Subject": "**Message you sent blocked by our bulk email filter**",
        },
    ),
    "yahoo": (
        f"Sorry, we were unable to deliver your message to the following address.\n\n<joe@example.net>:\n554: "
        f"delivery error: dd This user doesn't have a yahoo.com account (joe@example.net) [0] - mta1\n\n"
        f"--- Below this line is a copy of the message.\n\n{COPY}",
        {"From": "MAILER-DAEMON@yahoo.com", "Subject": "Failure Notice"},
    ),
    "mail-ru": (
        "This message was created automatically by mail delivery software.\n\nНе удалось доставить письмо.\n"
        "joe@example.net\n  invalid mailbox. User joe not found\n",
        {"From": "mailer-daemon@corp.example.ru", "Subject": "Mail failure.", "Auto_Submitted": "auto-replied"},
    ),
    "yandex": (
        multipart(
            "report",
            TEXT.format("Это письмо создано автоматически сервером. К сожалению, мы не можем доставить ваше письмо."),
            _STATUS,
            _RFC822,
        ),
        {
            "From": "mailer-daemon@example.ru",
            "Subject": "Недоставленное сообщение",
            "Content_Type": _REPORT + "delivery-status",
        },
    ),
    "qq": (
        "<html><body>抱歉，您的邮件被退回来了……<br>收件人 joe@example.net<br>退信原因 "
        "收件人邮件地址不存在</body></html>",
        {"From": "PostMaster@qq.com", "Subject": "来自qq.com的退信", "Content_Type": "text/html; charset=utf-8"},
    ),
    "163": (
        "<html><body>抱歉，您的邮件被退回来了。<p>收件人：joe@example.net<p>退信代码 550 User not found</body></html>",
        {
            "From": "Postmaster@163.com",
            "Subject": "系统退信/Systems bounce",
            "Content_Type": "text/html; charset=utf-8",
        },
    ),
    "naver": (
        "보내신 메일이 전송되지 않았습니다.\n\n받는사람 joe@example.net\n실패사유 사용자를 찾을 수 없음\n",
        {"From": "MAIL_DELIVERY <mailer-daemon@naver.example>", "Subject": "메일이 전송되지 않았습니다."},
    ),
    "kddi": (
        f"Your mail sent on: Sat, 14 Mar 2026 09:20:00\n\nCould not be delivered to: "
        f"<joe@example.net>:  User unknown\n\n--- Original message ---\n{COPY}",
        {"From": "Postmaster@ezweb.example", "Subject": "Mail System Error - Returned Mail"},
    ),
    "gmx": (
        "Diese Nachricht wurde automatisch von der Mailserver-Software erstellt.\n\nEine von Ihnen gesendete E-Mail "
        "konnte nicht an alle Empfänger zugestellt werden:\n\njoe@example.net\n  550 5.1.1 unbekannt\n",
        {
            "From": "GMX Mailer Daemon <mailer-daemon@gmx.example>",
            "Return_Path": "<>",
            "Subject": "Mail delivery failed: returning message to sender",
        },
    ),
    "mdaemon": (
        "The attached message had PERMANENT fatal delivery errors!\n\nAfter one or more unsuccessful delivery "
        "attempts the attached message has\nbeen removed from the mail queue on this server.\n\n"
        "550 <joe@example.net>, Recipient unknown\n",
        {
            "From": "MDaemon at mx.example.net <MDaemon@mx.example.net>",
            "Subject": "Permanent Delivery Failure",
            "X_MDaemon_Deliver_To": "support@example.com",
        },
    ),
    "kerio": (
        multipart(
            "mixed",
            TEXT.format(
                "Your message was not delivered to the following recipients:\n\njoe@example.net: 550 5.1.1 unknown user"
            ),
            _RFC822,
        ),
        {
            **_DAEMON,
            "From": "Kerio Connect <postmaster@mx.example.net>",
            "Content_Type": _MIXED,
            "Subject": "Undelivered Mail: Your ticket 4711",
        },
    ),
    "hmailserver": (
        "Your message did not reach some or all of the intended recipients.\n\n   Sent: Sat, 14 Mar 2026\n"
        "   Subject: Your ticket 4711\n\nThe following recipient(s) could not be reached:\n\n"
        "joe@example.net\n   Error Type: SMTP\n   Error Description: 550 Unknown user\n\nhMailServer\n",
        {
            "From": "mailer-daemon@mx.example.net",
            "Subject": "Message undeliverable: Your ticket 4711",
            "Return_Path": "<>",
        },
    ),
    "imail": (
        "User mailbox exceeds allowed size: joe@example.net\n\nOriginal message follows.\n\n" + COPY,
        {"From": "Postmaster <postmaster@mx.example.net>", "Subject": "Undeliverable Mail"},
    ),
    "smartermail": (
        "Could not deliver message to the following recipient(s):\n\nFailed Recipient: joe@example.net\n"
        "Reason: Remote host said: 550 No such user\n\n   -- The header and top 20 lines --\n\n" + COPY,
        {"From": "System Administrator <postmaster@mx.example.net>", "Subject": "Delivery Failure"},
    ),
    "communigate": (
        multipart(
            "report",
            TEXT.format(
                "Failed to deliver to 'joe@example.net'\nSMTP module(domain example.net) reports:\n account is disabled"
            ),
            _STATUS,
            _RFC822,
        ),
        {
            "From": "MAILER-DAEMON@mx.example.net",
            "Subject": "Undeliverable mail: Your ticket 4711",
            "Content_Type": 'Multipart/Report; report-type="delivery-status"; boundary="b"',
        },
    ),
    "jes": (
        multipart("report", TEXT.format("This report relates to a message you sent"), _STATUS, _RFC822),
        {
            "From": "Internet Mail Delivery <postmaster@mx.example.net>",
            "Content_Type": _REPORT + "delivery-status",
            "Subject": "Delivery Notification: Delivery has failed",
        },
    ),
    "exchange-2003-delay": (
        multipart(
            "report",
            TEXT.format(
                "This is an automatically generated Delivery Status Notification.\n\nTHIS IS A "
                "WARNING MESSAGE ONLY.\n\nYOU DO NOT NEED TO RESEND YOUR MESSAGE."
            ),
            _STATUS.replace("failed", "delayed").replace("5.1.1", "4.4.7"),
        ),
        {
            "From": "postmaster@example.net",
            "Subject": "Delivery Status Notification (Delay)",
            "Content_Type": _REPORT + "delivery-status",
        },
    ),
    "opensmtpd": (
        "    Hi!\n\n    This is the MAILER-DAEMON, please DO NOT REPLY to this email.\n\n    An error has "
        "occurred while attempting to deliver a message for\n    the following list of recipients:\n\n"
        f"joe@example.net: 550 Invalid recipient\n\n    Below is a copy of the original message:\n\n{COPY}",
        {"From": "Mailer Daemon <MAILER-DAEMON@mx.example.net>", "Subject": "Delivery status notification: error"},
    ),
    "facebook": (
        "This message was created automatically by Facebook.\n\nSorry, your message couldn't be delivered to "
        "joe@example.net.\nThe email address does not exist.\n",
        {"From": "mailer-daemon@mx-out.example.com", "Subject": "Sorry, your message couldn't be delivered"},
    ),
    "sms-gateway": (
        "Message could not be delivered to joe@example.net.\n",
        {"From": "postmaster@mms.example.net", "Subject": "Undeliverable Message", "Return_Path": "<>"},
    ),
    "status-in-mixed": (
        multipart("mixed", TEXT.format("Ihre Nachricht konnte nicht zugestellt werden."), _STATUS),
        {"From": "Postmaster <postmaster@example.net>", "Content_Type": _MIXED, "Subject": "Zustellung fehlgeschlagen"},
    ),
    "report-with-disclaimer": (
        "--b\nContent-Type: multipart/report; report-type=delivery-status; boundary=c\n\n--c\nContent-Type: "
        f"text/plain\n\nNot delivered\n--c\n{_STATUS}\n--c--\n--b\nContent-Type: text/plain\n\nThis mail is "
        "confidential.\n--b--\n",
        {
            "From": "Mail Delivery System <MAILER-DAEMON@mx.example.net>",
            "Content_Type": _MIXED,
            "Subject": "Undelivered Mail Returned to Sender",
        },
    ),
    "by-a-list": (
        multipart("report", TEXT.format("not delivered"), _STATUS, _RFC822),
        {
            **_DAEMON,
            "List_Id": "<support.lists.example.com>",
            "Precedence": "list",
            "Subject": "[support] Undelivered Mail Returned to Sender",
            "Content_Type": _REPORT + "delivery-status",
        },
    ),
    "mainframe": (
        "mx.example.net unable to deliver following mail to recipient(s):\n    <joe@example.net>\n"
        "mx.example.net received negative reply from host:\n    550 unknown\n\n     ** Text of Mail "
        f"follows **\n{COPY}",
        {"From": "SMTP@mx.example.net", "Subject": "Undeliverable Mail"},
    ),
    "sendmail-warning": (
        "    **********************************************\n    **      THIS IS A WARNING MESSAGE "
        "ONLY      **\n    **  YOU DO NOT NEED TO RESEND YOUR MESSAGE  **\n    ********************\n\n"
        "   ----- Transcript of session follows -----\n<joe@example.net>... Deferred: Connection timed "
        "out\nWarning: message still undelivered after 4 hours\nWill keep trying until message is 5 "
        "days old\n",
        {
            "From": "Mail Delivery Subsystem <MAILER-DAEMON@mx.example.net>",
            "Subject": "Warning: could not send message for past 4 hours",
            "Auto_Submitted": "auto-generated (warning-timeout)",
        },
    ),
    "exchange-online-turkish": (
        multipart("report", TEXT.format("İletiniz teslim edilemedi"), _STATUS, _RFC822),
        {
            "From": "Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@example.net>",
            "Subject": "Teslim Edilemedi: sipariş",
            "Content_Type": _REPORT + "delivery-status",
        },
    ),
    "exchange-hindi": (
        "आपका संदेश वितरित नहीं किया जा सका\njoe@example.net\n",
        {
            "From": "Microsoft Outlook <postmaster@example.net>",
            "Return_Path": "<>",
            "Subject": "सुपुर्द न करने योग्य: order",
        },
    ),
    "sophos": (
        "The message could not be delivered to joe@example.net: 550 relay not permitted\n",
        {
            "From": "Firewall Notification System <do-not-reply@fw.example.net>",
            "Subject": "Mail delivery failed : returning message to sender",
            "Auto_Submitted": "auto-generated",
        },
    ),
    "james": (
        multipart(
            "mixed",
            TEXT.format(
                "Hi. This is the James mail server at mx.example.net.\nI'm afraid I wasn't "
                "able to deliver your message to the following addresses.\nThis is a "
                "permanent error; I've given up.\n\njoe@example.net\n550 unknown"
            ),
            _RFC822,
        ),
        {**_DAEMON, "From": "postmaster@mx.example.net", "Content_Type": _MIXED, "Subject": "Re: Your ticket 4711"},
    ),
}

_ASKED: Fields = {"In_Reply_To": "<orig@example.com>"}
_ANSWERS: dict[str, tuple[str, Fields]] = {
    "gmail": (
        "I am away.\n",
        {
            "Auto_Submitted": "auto-replied",
            "Precedence": "bulk",
            "X_Autoreply": "yes",
            "Subject": "On holiday Re: my order",
        },
    ),
    "exchange": (
        "Ich bin weg.\n",
        {
            "Auto_Submitted": "auto-generated",
            "X_Auto_Response_Suppress": "All",
            "Subject": "Automatische Antwort: Bestellung",
        },
    ),
    "notes-new": (
        "I am out.\n",
        {
            "Auto_Submitted": "auto-generated",
            "X_Mailer": "IBM Notes Release 9.0.1",
            "Subject": "AUTO: Jane Doe is out of the office (returning 20.03.2026)",
        },
    ),
    "notes-old": (
        "I will be out of the office starting  14.03.2026 and will not return until 20.03.2026.\n",
        {**_ASKED, "Auto_Submitted": "auto-generated", "Subject": "Jane Doe is out of the office."},
    ),
    "notes-german": (
        "Ich bin außer Haus.\n",
        {"Auto_Submitted": "auto-generated", "Subject": "AUTO: Jane Doe ist außer Haus (Rückkehr am 20.03.2026)"},
    ),
    "notes-french": (
        "Je suis absent.\n",
        {"Auto_Submitted": "auto-generated", "Subject": "Jane Doe est absent(e) du bureau."},
    ),
    "notes-spanish": (
        "x\n",
        {
            "Auto_Submitted": "auto-generated",
            "Subject": "AUTO: Jane Doe está fuera de la oficina (regreso el 20/03/2026)",
        },
    ),
    "notes-italian": (
        "x\n",
        {"Auto_Submitted": "auto-generated", "Subject": "AUTO: Jane Doe è fuori ufficio (ritorno 20/03/2026)"},
    ),
    "sieve": (
        "x\n",
        {
            "Auto_Submitted": "auto-replied (vacation)",
            "Precedence": "bulk",
            "X_Sieve": "Pigeonhole Sieve 0.5",
            "Subject": "Auto: my order",
        },
    ),
    "cpanel": ("x\n", {"X_Autorespond": "my order", "Precedence": "auto_reply", "Subject": "I am away"}),
    "plesk": (
        "x\n",
        {"Return_Path": "<>", "Precedence": "bulk", "Auto_Submitted": "auto-replied", "Subject": "Re: my order"},
    ),
    "zoho": (
        "x\n",
        {
            **_ASKED,
            "Precedence": "bulk",
            "Auto_Submitted": "auto-replied",
            "X_Mailer": "Zoho Mail",
            "Subject": "Out of Office Re: my order",
        },
    ),
    "kolab": ("x\n", {"Auto_Submitted": "auto-replied", "Subject": "Abwesenheit"}),
    "yahoo": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Yahoo! Auto Response"}),
    "groupwise": (
        "x\n",
        {
            **_ASKED,
            "X_Mailer": "Novell GroupWise Internet Agent",
            "Auto_Submitted": "auto-replied",
            "Subject": "Away: my order",
        },
    ),
    "openxchange": ("x\n", {"Auto_Submitted": "auto-replied (vacation)", "Subject": "Urlaub"}),
    "first-class": ("x\n", {"X_Autoreply": "Yes", "Subject": "Auto Reply: my order"}),
    "communigate": ("x\n", {"X_Autogenerated": "Reply", "Subject": "Re: my order", "Precedence": "junk"}),
    "ms-german-2003": ("x\n", {"Return_Path": "<>", "Subject": "Abwesenheitsnotiz: Bestellung"}),
    "eu": ("x\n", {**_ASKED, "Subject": "Erantzun automatikoa: eskaera", "X_Auto_Response_Suppress": "All"}),
    "hi": (
        "x\n",
        {
            **_ASKED,
            "Subject": "स्वचालित उत्तर: order",
            "X_Auto_Response_Suppress": "All",
            "Auto_Submitted": "auto-generated",
        },
    ),
    "sr": ("x\n", {**_ASKED, "Subject": "Аутоматски одговор: наруџбина", "X_Auto_Response_Suppress": "All"}),
    "mk": ("x\n", {**_ASKED, "Subject": "Автоматски одговор: нарачка", "X_Auto_Response_Suppress": "All"}),
    "sq": ("x\n", {**_ASKED, "Subject": "Përgjigje automatike: porosia", "X_Auto_Response_Suppress": "All"}),
    "ms": ("x\n", {**_ASKED, "Subject": "Balasan automatik: pesanan", "X_Auto_Response_Suppress": "All"}),
    "fa": ("x\n", {**_ASKED, "Subject": "پاسخ خودکار: سفارش", "X_Auto_Response_Suppress": "All"}),
    "cy": ("x\n", {**_ASKED, "Subject": "Ateb awtomatig: archeb", "X_Auto_Response_Suppress": "All"}),
    "ga": ("x\n", {**_ASKED, "Subject": "Freagra uathoibríoch: ordú", "X_Auto_Response_Suppress": "All"}),
    "kk": ("x\n", {**_ASKED, "Subject": "Автоматты жауап: тапсырыс", "X_Auto_Response_Suppress": "All"}),
    "az": ("x\n", {**_ASKED, "Subject": "Avtomatik cavab: sifariş", "X_Auto_Response_Suppress": "All"}),
    "hy": ("x\n", {**_ASKED, "Subject": "Ավտոմատ պատասխան: պատվեր", "X_Auto_Response_Suppress": "All"}),
    "ka": ("x\n", {**_ASKED, "Subject": "ავტომატური პასუხი: შეკვეთა", "X_Auto_Response_Suppress": "All"}),
    "af": ("x\n", {**_ASKED, "Subject": "Outomatiese antwoord: bestelling", "X_Auto_Response_Suppress": "All"}),
    "ur": ("x\n", {**_ASKED, "Subject": "خودکار جواب: آرڈر", "X_Auto_Response_Suppress": "All"}),
    "bn": ("x\n", {**_ASKED, "Subject": "স্বয়ংক্রিয় উত্তর: order", "X_Auto_Response_Suppress": "All"}),
    "sw": ("x\n", {**_ASKED, "Subject": "Jibu la kiotomatiki: agizo", "X_Auto_Response_Suppress": "All"}),
    "lb": ("x\n", {**_ASKED, "Subject": "Automatesch Äntwert: Bestellung", "X_Auto_Response_Suppress": "All"}),
    "mn": ("x\n", {**_ASKED, "Subject": "Автомат хариу: захиалга", "X_Auto_Response_Suppress": "All"}),
    "absent-it": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Fuori ufficio: ordine"}),
    "absent-nl": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Niet aanwezig: bestelling"}),
    "absent-sv": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Frånvarande: order"}),
    "absent-da": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Fraværende: ordre"}),
    "absent-no": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Ikke til stede: ordre"}),
    "absent-pl": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Nieobecność w biurze: zamówienie"}),
    "absent-ru": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Нет на месте: заказ"}),
    "absent-uk": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Відсутній в офісі: замовлення"}),
    "absent-ja": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "不在通知: 注文"}),
    "absent-he": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "מחוץ למשרד: הזמנה"}),
    "absent-el": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Απουσία από το γραφείο: παραγγελία"}),
    "absent-hr": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Odsutan: narudžba"}),
    "absent-sk": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Mimo kancelárie: objednávka"}),
    "absent-bg": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Извън офиса: поръчка"}),
    "absent-ca": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Fora de l'oficina: comanda"}),
    "absent-pt-2": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Ausência do escritório: pedido"}),
    "absent-fr-2": ("x\n", {**_ASKED, "Precedence": "bulk", "Subject": "Absence du bureau : commande"}),
    "left-the-company": ("x\n", {**_ASKED, "Return_Path": "<>", "Subject": "Jane Doe has left the company"}),
    "received-yours": (
        "x\n",
        {
            "Auto_Submitted": "auto-replied",
            "From": "Help <help@example.org>",
            "Subject": "We have received your request",
        },
    ),
}

_CHALLENGES: dict[str, tuple[str, Fields]] = {
    "tmda": (
        "x\n",
        {"X_TMDA_Fingerprint": "aGVsbG8", "Subject": "Please confirm your message", "Auto_Submitted": "auto-replied"},
    ),
    "boxbe": (
        "x\n",
        {
            "From": "Boxbe <noreply@boxbe.com>",
            "Return_Path": "<>",
            "Subject": "[Boxbe] Jane has not yet received your message (Action Required)",
        },
    ),
    "earthlink": (
        "x\n",
        {
            **_ASKED,
            "Precedence": "bulk",
            "Auto_Submitted": "auto-replied",
            "Subject": "Sender verification required: my order",
        },
    ),
}

_GENERATED: dict[str, tuple[str, Fields]] = {
    "zendesk": (
        "x\n",
        {
            "Auto_Submitted": "auto-generated",
            "X_Auto_Response_Suppress": "All",
            "X_Mailer": "Zendesk Mailer",
            "Subject": "[Request received] my order",
        },
    ),
    "otrs": (
        "x\n",
        {
            "Auto_Submitted": "auto-generated",
            "X_Powered_By": "OTRS",
            "Precedence": "bulk",
            "Subject": "[Ticket#2026031410000011] Your request",
        },
    ),
    "cron": (
        "x\n",
        {
            "From": "Cron Daemon <root@host.example.org>",
            "X_Cron_Env": "<SHELL=/bin/sh>",
            "Subject": "Cron <root@host> /usr/local/bin/backup",
        },
    ),
    "jira": (
        "x\n",
        {
            "X_JIRA_FingerPrint": "4711",
            "Precedence": "bulk",
            "Auto_Submitted": "auto-generated",
            "Subject": "[JIRA] (SHOP-1) order",
        },
    ),
    "asterisk": (
        "x\n",
        {
            "From": "Asterisk PBX <asterisk@pbx.example.org>",
            "X_Asterisk_CallerID": "0301234567",
            "X_Asterisk_CallerIDName": "Joe",
            "Subject": "[PBX]: New message 3 in mailbox 100",
        },
    ),
    "bugzilla": (
        "x\n",
        {
            "X_Bugzilla_Reason": "CC",
            "X_Bugzilla_Type": "changed",
            "Auto_Submitted": "auto-generated",
            "Subject": "[Bug 4711] order",
        },
    ),
    "gitlab": (
        "x\n",
        {
            "X_GitLab_Project": "shop",
            "Auto_Submitted": "auto-generated",
            "Subject": "shop | Pipeline has failed for main | abc",
        },
    ),
    "debian-bug": (
        "x\n",
        {
            "From": "owner@bugs.example.org (Bug Tracking System)",
            "X_Debian_PR_Message": "ack 4711",
            "Auto_Submitted": "auto-generated",
            "Precedence": "bulk",
            "Subject": "Bug#4711: Acknowledgement (order)",
        },
    ),
    "printer": (
        "Toner is low.\n",
        {"From": "printer@example.org", "Auto_Submitted": "auto-generated", "Subject": "Alert: toner low"},
    ),
}

_LISTS: dict[str, tuple[str, Fields]] = {
    "mailman-2": (
        "x\n",
        {
            "X_BeenThere": "users@lists.example.org",
            "X_Mailman_Version": "2.1.39",
            "Precedence": "list",
            "List_Id": "Users <users.lists.example.org>",
            "Subject": "[Users] order",
        },
    ),
    "mailman-3": (
        "x\n",
        {"Message_ID_Hash": "ABC", "List_Id": "Users <users.lists.example.org>", "Subject": "[Users] order"},
    ),
    "sympa": (
        "x\n",
        {
            "X_Loop": "users@lists.example.org",
            "X_Sequence": "12",
            "Precedence": "list",
            "List_Id": "<users.lists.example.org>",
        },
    ),
    "ezmlm": (
        "x\n",
        {
            "Mailing_List": "contact users-help@example.org; run by ezmlm",
            "Precedence": "bulk",
            "Delivered_To": "mailing list users@example.org",
        },
    ),
    "majordomo": ("x\n", {"Sender": "owner-users@lists.example.org", "Precedence": "bulk", "Subject": "order"}),
    "listserv": ("x\n", {"Sender": "Users <USERS@LISTSERV.EXAMPLE.EDU>", "Precedence": "list", "Subject": "order"}),
    "smartlist": (
        "x\n",
        {
            "X_Mailing_List": "<users@lists.example.org> archive/latest/11",
            "Precedence": "list",
            "X_Loop": "users@lists.example.org",
        },
    ),
    "google-groups": (
        "x\n",
        {
            "X_Google_Group_Id": "4711",
            "Precedence": "list",
            "Mailing_list": "list users@example.org; contact users+owners@example.org",
            "List_ID": "<users.example.org>",
        },
    ),
    "groups-io": ("x\n", {"X_Groupsio_MsgNum": "12", "List_ID": "<main.users.groups.io>", "Precedence": "Bulk"}),
    "fml": ("x\n", {"X_ML_Name": "users", "X_Mail_Count": "00012", "X_MLServer": "fml [fml 4.0.3]"}),
    "ecartis": (
        "x\n",
        {"X_ecartis_version": "Ecartis v1.0.0", "X_list": "users", "Sender": "users-bounce@example.org"},
    ),
    "listproc": (
        "x\n",
        {
            "X_Listprocessor_Version": "8.2.10 -- ListProc(tm) by CREN",
            "Sender": "owner-users@example.edu",
            "Precedence": "bulk",
        },
    ),
    "lyris": (
        "x\n",
        {
            "List_Unsubscribe": "<mailto:leave-users-4711@lists.example.org>",
            "X_List_Host": "Users",
            "X_Lyris_Message_Id": "<LYRIS-4711@lists.example.org>",
        },
    ),
    "mlmmj": ("x\n", {"X_Mailinglist": "users", "Precedence": "list", "List_Post": "<mailto:users@example.org>"}),
    "github": (
        "x\n",
        {
            "List_ID": "shop/shop <shop.shop.github.example>",
            "Precedence": "list",
            "X_GitHub_Reason": "subscribed",
            "Subject": "Re: [shop/shop] order (#4711)",
            **_ASKED,
        },
    ),
    "mailman-held": (
        "x\n",
        {
            "From": "users-bounces@lists.example.org",
            "X_List_Administrivia": "yes",
            "Precedence": "bulk",
            "X_BeenThere": "users@lists.example.org",
            "Subject": "Your message to Users awaits moderator approval",
        },
    ),
    "person-on-a-list-quotes-a-bounce": (
        "> 550 5.1.1 User unknown\n",
        {
            "List_Id": "<users.lists.example.org>",
            "Precedence": "list",
            "Subject": "[Users] Re: Undelivered Mail Returned to Sender",
        },
    ),
}

_BULK: dict[str, tuple[str, Fields]] = {
    "mailchimp": ("x\n", {"X_MC_User": "4711", "List_Unsubscribe": "<https://example.org/u>", "Precedence": "bulk"}),
    "brevo": (
        "x\n",
        {
            "X_Mailin_EID": "4711",
            "List_Unsubscribe": "<https://example.org/u>",
            "List_Unsubscribe_Post": "List-Unsubscribe=One-Click",
        },
    ),
    "inxmail": ("x\n", {"X_Mailer": "Inxmail EE 4.8", "Precedence": "bulk", "Subject": "News in March"}),
    "constant-contact": (
        "x\n",
        {
            "List_Unsubscribe": "<https://example.org/u>",
            "X_Campaign_Activity_ID": "1",
            "Subject": "Delivery problems? Read on",
        },
    ),
    "salesforce": ("x\n", {"x_job": "4711_1", "List_Unsubscribe": "<mailto:leave-fd@example.org>"}),
}

_XML = (
    'Content-Type: application/gzip; name="example.org!example.com!1773446400!1773532799.xml.gz"\n'
    'Content-Disposition: attachment; filename="example.org!example.com!1773446400!1773532799.xml.gz"\n'
    "Content-Transfer-Encoding: base64\n\nH4sIAAAAAAAA\n"
)
_MDN = (
    "Content-Type: message/disposition-notification\n\nFinal-Recipient: rfc822;jane@example.org\n"
    "Original-Message-ID: <orig-4711@example.com>\nDisposition: manual-action/MDN-sent-manually; displayed\n"
)
_ARF = "Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: FBL/1.0\nVersion: 0.1\n"
_REPORTS: dict[str, tuple[str, Fields]] = {
    "dmarc-microsoft": (
        multipart("mixed", TEXT.format("This is a DMARC aggregate report"), _XML),
        {
            "From": "DMARC Aggregate Report <dmarcreport@microsoft.example>",
            "Content_Type": _MIXED,
            "Subject": "[Preview] Report Domain: example.com Submitter: enterprise.example Report-ID: 4711",
        },
    ),
    "dmarc-google": (
        "H4sI\n",
        {
            "From": "noreply-dmarc-support@google.example",
            "Content_Transfer_Encoding": "base64",
            "Content_Type": 'application/zip; name="google.com!example.com!1773446400!1773532799.zip"',
            "Content_Disposition": 'attachment; filename="google.com!example.com!1773446400!1773532799.zip"',
            "Subject": "Report domain: example.com Submitter: google.com Report-ID: 4711",
        },
    ),
    "dmarc-mail-ru": (
        multipart("mixed", TEXT.format("This is an aggregate report"), _XML),
        {
            "From": "dmarc_support@corp.example.ru",
            "Content_Type": _MIXED,
            "Auto_Submitted": "auto-generated",
            "Subject": "Report Domain: example.com; Submitter: Mail.Ru; Report-ID: 4711",
        },
    ),
    "dmarc-plain-words": (
        multipart("mixed", TEXT.format("attached"), _XML),
        {
            "From": "DMARC <dmarc@example.org>",
            "Content_Type": _MIXED,
            "Auto_Submitted": "auto-generated",
            "Subject": "Dmarc Aggregate Report Domain: {example.com} Submitter: {Amazon SES} Date: {2026-03-14}",
        },
    ),
    "tls-google": (
        multipart(
            "report",
            TEXT.format("This is an aggregate TLS report"),
            "Content-Type: application/tlsrpt+gzip; name=a.json.gz\nContent-Transfer-Encoding: base64\n\nH4sI\n",
        ),
        {
            "TLS_Report_Domain": "example.com",
            "TLS_Report_Submitter": "google.com",
            "Content_Type": _REPORT + "tlsrpt",
            "Subject": "Report Domain: example.com Submitter: google.com Report-ID: <2026.03.14@example.com>",
        },
    ),
    "tls-no-header": (
        multipart("mixed", TEXT.format("x"), "Content-Type: application/tlsrpt+json; name=a.json\n\n{}\n"),
        {
            "Content_Type": "multipart/report; boundary=b",
            "From": "tlsrpt@example.org",
            "Subject": "Report Domain: example.com Submitter: example.org",
        },
    ),
    "arf": (
        multipart("report", TEXT.format("This is an email abuse report"), _ARF, _RFC822),
        {"Content_Type": _REPORT + "feedback-report", "From": "feedback@arf.example.org", "Subject": "FW: Your ticket"},
    ),
    "jmrp": (
        multipart("mixed", TEXT.format("x"), _RFC822),
        {
            "From": "staff@hotmail.example",
            "X_HmXmrOriginalRecipient": "joe@example.net",
            "Content_Type": _MIXED,
            "Subject": "complaint about message from 192.0.2.1",
        },
    ),
    "dmarc-failure": (
        multipart(
            "report",
            TEXT.format("This is an authentication failure report"),
            _ARF.replace("abuse", "auth-failure"),
            _RFC822,
        ),
        {
            "Content_Type": _REPORT + "feedback-report",
            "From": "dmarc-noreply@example.org",
            "Subject": "FW: Your ticket 4711",
        },
    ),
    "mdn-outlook": (
        multipart("report", TEXT.format("Your message was read"), _MDN),
        {"Content_Type": _REPORT + "disposition-notification", "Subject": "Read: Your ticket 4711", **_ASKED},
    ),
    "mdn-thunderbird": (
        multipart("report", TEXT.format("This is a Return Receipt"), _MDN),
        {
            "Content_Type": _REPORT + "disposition-notification",
            "User_Agent": "Mozilla Thunderbird",
            "Subject": "Return Receipt (displayed) - Your ticket 4711",
        },
    ),
    "mdn-unread-german": (
        multipart("report", TEXT.format("wurde ungelesen gelöscht"), _MDN.replace("displayed", "deleted")),
        {
            "Content_Type": "multipart/report; boundary=b",
            "Return_Path": "<>",
            "Subject": "Nicht gelesen: Your ticket 4711",
        },
    ),
    "mdn-notes": (
        multipart("report", TEXT.format("Return Receipt"), _MDN),
        {
            "Content_Type": _REPORT + "disposition-notification",
            "Subject": "Return Receipt",
            "X_Mailer": "Lotus Domino Web Server Release 8.5.3",
        },
    ),
    "mdn-exchange-no-report": (
        "Your message was read on Saturday.\n",
        {"Return_Path": "<>", "Subject": "Gelesen: Your ticket 4711", **_ASKED},
    ),
}

_CALENDAR: dict[str, tuple[str, Fields]] = {
    "accepted": (
        "BEGIN:VCALENDAR\nMETHOD:REPLY\nEND:VCALENDAR\n",
        {"Content_Type": "text/calendar; method=REPLY; charset=utf-8", "Subject": "Accepted: order talk"},
    ),
}

_PEOPLE: dict[str, tuple[str, Fields]] = {
    "car": ("x\n", {"Subject": "Auto: Reifenwechsel im April"}),
    "car-answer": ("x\n", {**_ASKED, "Subject": "AW: Auto: Reifenwechsel"}),
    "away-match": ("x\n", {"Subject": "Away: tickets for the match"}),
    "pupil-absent": ("Max ist krank.\n", {"Subject": "Abwesend: Max Müller, 5b"}),
    "complains": ("x\n", {"Subject": "Complaint about message from my neighbour"}),
    "phishing": ("x\n", {"Subject": "Report: domain example.com is used for phishing"}),
    "letter": ("x\n", {"Subject": "Mail delivery: where is my letter"}),
    "washing-machine": ("x\n", {"Subject": "Failure notice E21 of the washing machine"}),
    "parcel-german": ("x\n", {"Subject": "Zustellung nicht möglich, Paket 4711"}),
    "parcel-french": ("x\n", {"Subject": "Échec de livraison du colis"}),
    "parcel-returned": ("x\n", {"Subject": "Returned to sender?! parcel 4711", "From": "Jane Doe <admin@example.org>"}),
    "parcel-office": ("x\n", {"Subject": "Delivery failed again", "From": "Front Office <office@example.org>"}),
    "parcel-info": ("x\n", {"Subject": "Undeliverable parcel", "From": "Info <info@example.org>"}),
    "mail-boxes": ("x\n", {"Subject": "Your delivery", "From": "Mail Boxes Etc. <mbe@example.org>"}),
    "postma": ("x\n", {"Subject": "order", "From": "Piet Postma <postma@example.org>"}),
    "sysadmin": ("x\n", {"Subject": "DNS of your shop", "From": "Jane Doe (Systemadministratorin) <jane@example.org>"}),
    "auto-submitted-no": ("x\n", {"Auto_Submitted": "no"}),
    "suppresses": ("x\n", {"X_Auto_Response_Suppress": "DR, OOF, AutoReply"}),
    "read-this": ("x\n", {"Subject": "Read: this is urgent"}),
    "receipt-missing": ("x\n", {"Subject": "Return receipt missing from parcel"}),
    "automatic-light": ("x\n", {"Subject": "Automatik: Licht geht aus"}),
    "web-form": (
        "Name: Jane\nMail: jane@example.org\n",
        {
            "From": "Jane Doe <noreply@shop.example.org>",
            "X_Mailer": "PHPMailer 6.8.0",
            "Reply_To": "jane@example.org",
            "Subject": "Contact form: order",
        },
    ),
    "web-form-wordpress": (
        "x\n",
        {
            "From": "WordPress <wordpress@shop.example.org>",
            "X_Mailer": "PHPMailer 6.8.0",
            "Reply_To": "jane@example.org",
            "Subject": "[Shop] Message from Jane: delivery failure",
        },
    ),
    "forwards-a-bounce-attached": (
        multipart(
            "mixed",
            TEXT.format("what is this?"),
            "Content-Type: message/rfc822\n\nFrom: MAILER-DAEMON@mx.example.net\n"
            "Subject: failure notice\nContent-Type: multipart/report; report-type=delivery-status; boundary=c\n\n--c\n"
            f"{_STATUS}\n--c--\n",
        ),
        {"Content_Type": _MIXED, "Subject": "Fwd: failure notice"},
    ),
    "forwards-a-bounce-own-subject": (
        multipart("mixed", TEXT.format("what is this?"), _STATUS, _RFC822),
        {"Content_Type": _MIXED, "Subject": "My mail does not get through", "User_Agent": "Mozilla Thunderbird"},
    ),
    "redirected-by-a-rule": ("x\n", {"X_MS_Exchange_Inbox_Rules_Loop": "joe@example.net"}),
    "quotes-an-answer": (
        "> I am out of the office until Monday.\n\nWhen will Joe be back?\n",
        {**_ASKED, "Subject": "RE: Automatic reply: my order"},
    ),
    "answers-japanese": ("x\n", {**_ASKED, "Subject": "Re: 自動返信: 注文"}),
    "holiday-spanish": ("x\n", {"Subject": "Vacaciones: reserva para dos"}),
    "holiday-italian": ("x\n", {"Subject": "Ferie: prenotazione"}),
    "leave-english": ("x\n", {"Subject": "Annual leave: Jane Doe, 3 to 17 March"}),
    "out-of-office-question": (
        "x\n",
        {"Subject": "Out of office: how do I set it?", "X_Mailer": "Microsoft Outlook 16.0"},
    ),
    "quotes-list": (
        "> To unsubscribe send a mail to users-leave@lists.example.org\n\nHow do I leave?\n",
        {"Subject": "Re: [Users] digest"},
    ),
    "quotes-dmarc": ("x\n", {"Subject": "Fwd: Report domain: example.com Submitter: google.com Report-ID: 4711"}),
    "verify-address": ("x\n", {"Subject": "Please confirm my e-mail address"}),
    "gmail-web": ("x\n", {"Subject": "mail bounced, new address?", "X_Gm_Message_State": "abc"}),
    "iphone": ("x\n", {"Subject": "Undeliverable: my parcel", "X_Mailer": "iPhone Mail (22E240)"}),
    "rejected-goods": ("x\n", {"Subject": "Rejected: delivery of 14 March"}),
    "recall": ("x\n", {"Subject": "Recall: my order"}),
    "accepted-offer": ("x\n", {"Subject": "Accepted: your offer"}),
    "bounce-cheque": ("x\n", {"Subject": "Bounced cheque", "From": "Accounts <accounts@example.org>"}),
    "quota": ("x\n", {"Subject": "Mailbox full, cannot receive your invoice"}),
    "newsletter-stop": ("x\n", {"Subject": "unsubscribe"}),
    "chinese-return": ("x\n", {"Subject": "退货申请"}),
    "chinese-refund": ("x\n", {"Subject": "退件申请 4711"}),
    "polish-return": ("x\n", {"Subject": "Zwrot towaru"}),
    "korean-return": ("x\n", {"Subject": "반송 요청"}),
    "dutch-return": ("x\n", {"Subject": "Retour afzender: pakket 4711"}),
}


def mails() -> Iterator[tuple[str, str, bytes]]:
    """(class, name, octets)."""
    for kind, group in (
        ("bounce", _BOUNCES),
        ("auto-reply", _ANSWERS),
        ("challenge", _CHALLENGES),
        ("auto-generated", _GENERATED),
        ("list", _LISTS),
        ("bulk", _BULK),
        ("report", _REPORTS),
        ("calendar", _CALENDAR),
        ("human", _PEOPLE),
    ):
        for name, (body, fields) in group.items():
            yield kind, f"stranger-{kind}-{name}", mail(body, **fields)
