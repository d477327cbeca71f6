"""People, most of them such as a program would be taken for."""

from __future__ import annotations

from collections.abc import Iterator

from labelled.bounces import COPY
from labelled.made import mail

QUOTED = (
    "Hello,\n\nI got this back, what is wrong with it?\n\n> This is the mail system at host mx.example.net.\n> "
    "<joe@example.net>: 550 5.1.1 User unknown\n>\n> Reporting-MTA: dns; mx.example.net\n> Final-Recipient: "
    "rfc822;joe@example.net\n> Action: failed\n> Status: 5.1.1\n\nThanks, Jane\n"
)
_PEOPLE: dict[str, tuple[str, dict[str, str | None]]] = {
    "plain": ("Where is my parcel?\n", {}),
    "quotes-a-bounce": (QUOTED, {"Subject": "Re: Undelivered Mail Returned to Sender"}),
    "asks-about-a-bounce": (QUOTED, {"Subject": "Undeliverable mail, please help"}),
    "forwards-a-bounce": (COPY, {"Subject": "Fwd: Mail delivery failed: returning message to sender"}),
    "forwards-a-bounce-german": (COPY, {"Subject": "WG: Unzustellbar: Bestellung"}),
    "mail-delivery-problem": ("x", {"Subject": "Mail delivery failed, what now"}),
    "failure-notice": ("x", {"Subject": "failure notice?", "User_Agent": "Mozilla Thunderbird"}),
    "answers-an-absence": ("x", {"Subject": "Re: Automatic reply: my order", "In_Reply_To": "<orig@example.com>"}),
    "answers-an-absence-german": ("x", {"Subject": "AW: Abwesenheitsnotiz: Bestellung"}),
    "forwards-an-absence": ("x", {"Subject": "FW: Out of Office: my order"}),
    "is-away": ("I will be away.\n", {"Subject": "Out of office next week"}),
    "will-be-away": ("I will be away.\n", {"Subject": "Out of the office on Monday", "In_Reply_To": "<o@example.com>"}),
    "is-away-german": ("x", {"Subject": "Abwesenheit nächste Woche"}),
    "vacation": ("x", {"Subject": "On vacation from 3 to 17 March, orders please to Joe"}),
    "holiday-booking": ("x", {"Subject": "Urlaub: Anfrage für zwei Personen"}),
    "holiday-french": ("x", {"Subject": "Absence de réponse à ma demande"}),
    "reply-does-not-work": ("x", {"Subject": "Automatic reply does not work"}),
    "autoreply-question": ("x", {"Subject": "Autoreply cannot be switched off"}),
    "automatic-message": ("x", {"Subject": "Automatic message printing fails"}),
    "about-out-of-office": ("x", {"Subject": "Question about out of office replies"}),
    "away-client": ("x", {"Subject": "Out of Office: Friday", "X_Mailer": "Apple Mail (2.3654)"}),
    "away-outlook": ("x", {"Subject": "Abwesenheit: Freitag", "X_Mailer": "Microsoft Outlook 16.0",
                           "In_Reply_To": "<o@example.com>"}),
    "postmaster-person": ("x", {"From": "Jane Doe <postmaster@example.org>", "Subject": "your SPF record"}),
    "postmaster-answers": ("x", {"From": "Postmaster <postmaster@example.org>", "Subject": "Re: your SPF record",
                                 "In_Reply_To": "<o@example.com>"}),
    "postmaster-client": ("x", {"From": "Postmaster <postmaster@example.org>", "Subject": "your SPF record",
                                "User_Agent": "Mozilla Thunderbird"}),
    "administrator": ("x", {"From": "System Administrator <jane@example.org>", "Subject": "new printer"}),
    "admin": ("x", {"From": "admin@example.org", "Subject": "Question about the invoice"}),
    "office": ("x", {"From": "office@example.org", "Subject": "Delivery of our order failed"}),
    "mail-order": ("x", {"From": "Mail Order Dept <orders@example.org>", "Subject": "Delivery notification missing"}),
    "parcel": ("x", {"Subject": "Delivery failed, parcel returned to sender"}),
    "parcel-german": ("x", {"Subject": "Zustellung fehlgeschlagen, Paket nicht zugestellt"}),
    "parcel-french": ("x", {"Subject": "Erreur de livraison, colis non distribué"}),
    "returned-goods": ("x", {"Subject": "Returned: two shirts", "From": "returns@example.org"}),
    "returned-from-noreply": ("x", {"From": "noreply@example.org", "Reply_To": "jane@example.org",
                                    "Subject": "Contact form: parcel could not be delivered"}),
    "web-form": ("x", {"From": "noreply@example.com", "Reply_To": "jane@example.org", "Subject": "Contact form"}),
    "web-form-absence": ("x", {"From": "wordpress@example.com", "Reply_To": "jane@example.org",
                               "Subject": "Kontakt: Abwesenheit"}),
    "auto-submitted-no": ("x", {"Auto_Submitted": "no"}),
    "precedence-normal": ("x", {"Precedence": "normal"}),
    "suppress-alone": ("x", {"X_Auto_Response_Suppress": "DR, OOF, AutoReply", "Subject": "Re: meeting"}),
    "exchange-user": ("x", {"X_MS_Exchange_Organization_AuthAs": "Internal", "X_Originating_IP": "[192.0.2.7]"}),
    "tagged": ("x", {"Subject": "[EXTERNAL] Where is my parcel?"}),
    "ticket": ("x", {"Subject": "Re: [#4711] your question"}),
    "status-question": ("x", {"Subject": "Delivery status of order 4711"}),
    "user-unknown": ("x", {"Subject": "User unknown when I log in"}),
    "mailbox-full": ("x", {"Subject": "My mailbox is full, over quota"}),
    "confirm": ("x", {"Subject": "Please confirm your message of Monday"}),
    "read": ("x", {"Subject": "Read: the manual is wrong"}),
    "report": ("x", {"Subject": "Report: broken lamp"}),
    "abuse-report": ("x", {"Subject": "Abuse report form does not work"}),
    "dmarc-question": ("x", {"Subject": "Re: Report Domain: example.com Submitter: provider.example"}),
    "forwards-a-report": ("x", {"Subject": "Fwd: Report domain: example.com Submitter: provider.example"}),
    "calendar-question": ("x", {"Subject": "Accepted: your offer"}),
    "attaches-a-zip": ("x", {"Content_Type": "application/zip; name=photos.zip"}),
    "attaches-a-message": ("x", {"Content_Type": "multipart/mixed; boundary=b", "Subject": "Fwd: spam"}),
    "forwards-whole": (COPY, {"Content_Type": "message/rfc822", "Subject": "Fwd: Undelivered Mail"}),
    "without-subject": ("x", {"Subject": None}),
    "japanese-away": ("x", {"Subject": "不在の間の配達について"}),
    "chinese-away": ("x", {"Subject": "外出时的快递"}),
    "korean-returned": ("x", {"Subject": "반송 문의"}),
    "russian-holiday": ("x", {"Subject": "Отпуск в июле, вопрос о туре"}),
    "spanish-returned": ("x", {"Subject": "Paquete devuelto, no se pudo entregar"}),
    "polish-holiday": ("x", {"Subject": "Urlop i zwrot towaru"}),
    "latvian-holiday": ("x", {"Subject": "Atvaļinājums Rīgā"}),
    "out-of-stock": ("x", {"Subject": "Auto: Ersatzteil für meinen Wagen"}),
    "auto-away": ("x", {"Subject": "Auto: im Urlaub steht es in der Werkstatt"}),
    "auto-office": ("x", {"Subject": "AUTO: out of office parking"}),
    "boxed": ("x", {"Subject": "[Auto-reply] does it work for shops?"}),
    "round-boxed": ("x", {"Subject": "(Automatic reply) cannot be switched off"}),
    "boxed-answer": ("x", {"Subject": "Re: [Auto-Reply] Your request", "In_Reply_To": "<orig@example.com>"}),
    "mail-in-name": ("x", {"From": "Mailin Delivery <mailin@example.org>", "Subject": "Hello"}),
    "daemon-in-name": ("x", {"From": "Matt Daemon <daemon@example.org>", "Subject": "Hello"}),
    "return-path": ("x", {"Return_Path": "<jane@example.org>", "Subject": "Returned mail from you?"}),
}  # fmt: skip


def mails() -> Iterator[tuple[str, str, bytes]]:
    for name, (body, fields) in _PEOPLE.items():
        yield "human", f"person-{name}", mail(body, **fields)
