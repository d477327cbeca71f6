"""Bounces: reports by the RFC, and the texts of servers that know none."""

from __future__ import annotations

from collections.abc import Iterator

from labelled.made import mail, multipart

COPY = """Return-Path: <support@example.com>
Received: from mail.example.com by mx.example.net; Sat, 14 Mar 2026 09:26:53 +0100
From: Support <support@example.com>
To: joe@example.net
Subject: Your ticket 4711
Message-ID: <orig-4711@example.com>
Date: Sat, 14 Mar 2026 09:20:00 +0100

Hello Joe
"""
TEXT = "Content-Type: text/plain; charset=utf-8\n\n{}\n"


def report(
    action: str = "failed",
    status: str = "5.1.1",
    *,
    said: str = "Your message could not be delivered.",
    diagnostic: str = "smtp; 550 5.1.1 <joe@example.net>: unknown user",
    original: str = f"Content-Type: message/rfc822\n\n{COPY}",
    report_type: str = "; report-type=delivery-status",
    **fields: str | None,
) -> bytes:
    """A report as RFC 3464 wants it."""
    block = (
        "Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n"
        "Arrival-Date: Sat, 14 Mar 2026 09:20:00 +0100\n\n"
        "Original-Recipient: rfc822;joe@example.net\nFinal-Recipient: rfc822; joe@example.net\n"
        f"Action: {action}\nStatus: {status}\nRemote-MTA: dns; mx.example.net\nDiagnostic-Code: {diagnostic}\n"
    )
    known: dict[str, str | None] = {
        "From": "Mail Delivery System <MAILER-DAEMON@mx.example.net>",
        "Subject": "Undelivered Mail Returned to Sender",
        "Content_Type": f"multipart/report{report_type}; boundary=b",
    }
    return mail(multipart("report", TEXT.format(said), block, original), **known | fields)


_REPORTS = {
    "postfix": report(Return_Path="<>", Auto_Submitted="auto-replied"),
    "postfix-delayed": report("delayed", "4.4.1", Subject="Delayed Mail (still being retried)"),
    "postfix-success": report("relayed", "2.1.5", Subject="Successful Mail Delivery Report"),
    "exchange-online": report(From="Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@example.net>",
                              Subject="Undeliverable: Your ticket 4711", X_MS_Exchange_Message_Is_Ndr=""),
    "exchange-german": report(From="postmaster@example.net", Subject="Unzustellbar: Your ticket 4711"),
    "exchange-french": report(From="postmaster@example.net", Subject="Non remis : Your ticket 4711"),
    "exchange-japanese": report(From="postmaster@example.net", Subject="配信不能: Your ticket 4711"),
    "gmail": report(From="Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
                    Subject="Delivery Status Notification (Failure)", X_Failed_Recipients="joe@example.net"),
    "sendmail": report(Subject="Returned mail: see transcript for details",
                       From="Mail Delivery Subsystem <MAILER-DAEMON@mx.example.net>"),
    "sendmail-soft": report("failed", "4.2.2", diagnostic="smtp; 452 4.2.2 mailbox full"),
    "headers-only": report(original="Content-Type: text/rfc822-headers\n\n" + COPY.partition("\n\n")[0] + "\n"),
    "with-list-id": report(List_Id="<all.example.com>", Precedence="list"),
    "without-report-type": report(report_type=""),
    "from-somebody": report(From="Joe's Server <server@example.net>", Subject="Re: Your ticket 4711"),
    "as-a-disposition": report(report_type="; report-type=disposition-notification",
                               Subject="Automatically rejected mail"),
    "with-personal-client": report(X_Mailer="Microsoft Outlook 16.0", From="it@example.net"),
}  # fmt: skip

DAEMON = "MAILER-DAEMON@mx.example.net"
_TEXTS = {
    "qmail": (
        {"From": DAEMON, "Subject": "failure notice"},
        "Hi. This is the qmail-send program at mx.example.net.\nI'm afraid I wasn't able to deliver your message to "
        "the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n"
        "<joe@example.net>:\n192.0.2.7 does not like recipient.\nRemote host said: 550 5.1.1 no such user\n"
        "Giving up on 192.0.2.7.\n\n--- Below this line is a copy of the message.\n\n" + COPY,
    ),
    "qmail-plain-sender": (
        {"From": "MAILER-DAEMON", "Subject": "failure notice"},
        "<joe@example.net>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n"
        "--- Below this line is a copy of the message.\n\n" + COPY,
    ),
    "exim": (
        {"From": "Mail Delivery System <Mailer-Daemon@mx.example.net>", "X_Failed_Recipients": "joe@example.net",
         "Subject": "Mail delivery failed: returning message to sender"},
        "This message was created automatically by mail delivery software.\n\nA message that you sent could not be "
        "delivered to one or more of its\nrecipients. This is a permanent error. The following address(es) failed:\n\n"
        "  joe@example.net\n    SMTP error from remote mail server after RCPT TO:<joe@example.net>:\n"
        "    550 5.1.1 user unknown\n\n------ This is a copy of the message, including all the headers. ------\n\n"
        + COPY,
    ),
    "exim-delayed": (
        {"From": "Mail Delivery System <Mailer-Daemon@mx.example.net>",
         "Subject": "Warning: message 1abcDE-000123-AB delayed 24 hours"},
        "A message that you sent has not yet been delivered to one or more of its\nrecipients after more than 24 "
        "hours on the queue.\n\n  joe@example.net\n    Delay reason: Connection timed out\n\nNo action is required on "
        "your part. Delivery attempts will continue for\nsome time.\n\n" + COPY,
    ),
    "sendmail-old": (
        {"From": "Mail Delivery Subsystem <MAILER-DAEMON@mx.example.net>", "Subject": "Returned mail: User unknown"},
        "   ----- The following addresses had permanent fatal errors -----\n<joe@example.net>\n\n"
        "   ----- Transcript of session follows -----\n... while talking to mx.example.net.:\n>>> RCPT "
        "To:<joe@example.net>\n<<< 550 5.1.1 <joe@example.net>... User unknown\n\n   ----- Original message follows "
        "-----\n" + COPY,
    ),
    "postfix-old": (
        {"From": DAEMON, "Subject": "Undelivered Mail Returned to Sender"},
        "This is the Postfix program at host mx.example.net.\n\nI'm sorry to have to inform you that the message "
        "returned\nbelow could not be delivered to one or more destinations.\n\n<joe@example.net>: host "
        "mx.example.net[192.0.2.7] said: 550 5.1.1\n    <joe@example.net>: Recipient address rejected (in reply to "
        "RCPT TO\n    command)\n\n" + COPY,
    ),
    "exchange-2003": (
        {"From": "System Administrator <postmaster@example.net>", "Subject": "Undeliverable: Your ticket 4711"},
        "Your message\n\n  To:      joe@example.net\n  Subject: Your ticket 4711\n  Sent:    Sat, 14 Mar 2026 09:20:00 "
        "+0100\n\ndid not reach the following recipient(s):\n\njoe@example.net on Sat, 14 Mar 2026 09:21:00 +0100\n"
        "    The recipient name is not recognized\n        The MTS-ID of the original message is: c=us;a= ;p=X\n"
        "    MSEXCH:IMS:X:Y:Z 0 (000C05A6) Unknown Recipient\n",
    ),
    "domino": (
        {"From": "Postmaster@example.net", "Subject": "DELIVERY FAILURE: User joe (joe@example.net) not listed in "
                                                      "Domino Directory"},
        "Your message\n\n  Subject: Your ticket 4711\n\nwas not delivered to:\n\n  joe@example.net\n\nbecause:\n\n"
        "  User joe (joe@example.net) not listed in Domino Directory\n\n",
    ),
    "yahoo": (
        {"From": "MAILER-DAEMON@yahoo.example", "Subject": "Failure Notice"},
        "Sorry, we were unable to deliver your message to the following address.\n\n<joe@example.net>:\nRemote host "
        "said: 554 delivery error: dd This user doesn't have an account [RCPT_TO]\n\n--- Below this line is a copy of "
        "the message.\n\n" + COPY,
    ),
    "gmail-old": (
        {"From": "Mail Delivery Subsystem <mailer-daemon@googlemail.com>",
         "Subject": "Delivery Status Notification (Failure)", "X_Failed_Recipients": "joe@example.net"},
        "Delivery to the following recipient failed permanently:\n\n     joe@example.net\n\nTechnical details of "
        "permanent failure: \nGoogle tried to deliver your message, but it was rejected by the recipient domain. The "
        "error that the other server returned was: 550 550 5.1.1 unknown user (state 13).\n\n----- Original message "
        "-----\n\n" + COPY,
    ),
    "aol": (
        {"From": "Mail Delivery Subsystem <MAILER-DAEMON@aol.example>", "Subject": "Returned mail: User unknown"},
        "The original message was received at Sat, 14 Mar 2026\n\n----- The following addresses had permanent fatal "
        "errors -----\n<joe@example.net>\n\n" + COPY,
    ),
    "courier": (
        {"From": '"Courier mail server at mx.example.net" <@>', "Return_Path": "<>",
         "Subject": "NOTICE: mail delivery status."},
        "The following message was received:\n\nYour message to the following recipients\ncannot be delivered:\n\n"
        "<joe@example.net>:\n  <<< 550 User unknown.\n\n" + COPY,
    ),
    "mdaemon": (
        {"From": "MDaemon@mx.example.net", "Subject": "Permanent Delivery Failure", "Return_Path": "<>"},
        "The following data may contain sections which represent BASE64\n\n<joe@example.net> - 550 unknown user\n\n"
        + COPY,
    ),
    "imail": (
        {"From": "Postmaster@mx.example.net", "Subject": "Undeliverable Mail"},
        "Unknown user: joe@example.net\n\n\nOriginal message follows.\n\n" + COPY,
    ),
    "groupwise": (
        {"From": "Mailer-Daemon@mx.example.net", "Subject": "Message status - undeliverable"},
        "The message that you sent was undeliverable to the following:\n\tjoe@example.net (user not found)\n\n"
        "Possibly truncated original message follows:\n\n" + COPY,
    ),
    "barracuda": (
        {"From": "postmaster@gate.example.net", "Subject": "**Message you sent blocked by our bulk email filter**"},
        "Your message to: joe@example.net\nwas blocked by our Spam Firewall. The email you sent with the following "
        "subject has NOT BEEN DELIVERED:\n\nSubject: Your ticket 4711\n",
    ),
    "mimecast": (
        {"From": "Postmaster <postmaster@gate.example.net>", "Return_Path": "<>",
         "Subject": "[Postmaster] Email Delivery Failure"},
        "This is a delivery failure notification message indicating that an email you addressed to joe@example.net "
        "could not be delivered. The problem appears to be :\n-- Recipient email address is possibly incorrect\n",
    ),
    "symantec": (
        {"From": "Mail Delivery Subsystem <postmaster@gate.example.net>", "Subject": "Mail Delivery Failure"},
        "joe@example.net:\n  550 5.1.1 recipient rejected\n\n" + COPY,
    ),
    "gmx": (
        {"From": "GMX Mailer Daemon <mailer-daemon@gmx.example>", "Subject": "Mail delivery failed: returning message "
                                                                            "to sender"},
        "This message was created automatically by mail delivery software.\n\nA message that you sent could not be "
        "delivered to\none or more of its recipients. The following addresses\nfailed:\n\njoe@example.net:\nSMTP error "
        "from remote server for RCPT TO command, host: mx.example.net (192.0.2.7) reason: 550 unknown\n\n--- The "
        "header of the original message is following. ---\n\n" + COPY,
    ),
    "t-online": (
        {"From": "Mail Delivery Subsystem <postmaster@t-online.example>", "Subject": "Nicht zugestellte Mail / "
                                                                                     "Undelivered mail"},
        "Ihre Nachricht konnte nicht zugestellt werden.\n\njoe@example.net: 550 unbekannt\n\n" + COPY,
    ),
    "mail-ru": (
        {"From": "mailer-daemon@corp.example.ru", "Subject": "Сообщение не доставлено"},
        "Это письмо создано автоматически. Ваше письмо не доставлено.\n\njoe@example.net\n  550 нет такого "
        "пользователя\n\n" + COPY,
    ),
    "qq": (
        {"From": "PostMaster@qq.example", "Subject": "来自qq.example的退信"},
        "很抱歉您的邮件被退回来了。\n\njoe@example.net\n550 Mailbox not found\n\n" + COPY,
    ),
    "docomo": (
        {"From": "Mail Administrator <Postmaster@docomo.example>", "Subject": "Mail System Error - Returned Mail"},
        "This Message was undeliverable due to the following reason:\n\nEach of the following recipients was rejected "
        "by a remote mail server.\n\n    Recipient: <joe@example.net>\n    Reason:    550 Unknown user "
        "joe@example.net\n\n" + COPY,
    ),
    "kerio": (
        {"From": "postmaster@mx.example.net", "Subject": "Undeliverable: Mail delivery failed"},
        "Delivery to the following recipients failed.\n\n  joe@example.net  550 no such mailbox\n\n" + COPY,
    ),
    "ses": (
        {"From": "MAILER-DAEMON@eu-west-1.amazonses.example", "Subject": "Delivery Status Notification (Failure)"},
        "An error occurred while trying to deliver the mail to the following recipients:\njoe@example.net\n\n" + COPY,
    ),
    "vms": (
        {"From": "PMDF Internet Messaging <postmaster@mx.example.net>",
         "Subject": "Delivery Notification: Delivery has failed"},
        "This report relates to a message you sent with the following header fields:\n\nYour message cannot be "
        "delivered to the following recipients:\n\n  Recipient address: joe@example.net\n  Reason: unknown or illegal "
        "alias\n\n" + COPY,
    ),
    "surgemail": (
        {"From": "Mail Delivery <postmaster@mx.example.net>", "Subject": "Email undeliverable"},
        "Your message cannot be delivered to the following recipients:\n\njoe@example.net 550 unknown\n\n" + COPY,
    ),
    "mailmarshal": (
        {"From": "MailMarshal@gate.example.net", "Return_Path": "<>", "Subject": "Undeliverable Mail: Your ticket"},
        "Your message was not delivered to:\n   joe@example.net\nfor the following reason: 550 unknown\n\n",
    ),
    "trend": (
        {"From": "postmaster@gate.example.net", "Return_Path": "<MAILER-DAEMON@gate.example.net>",
         "Subject": "Undeliverable message"},
        "Sent >>> RCPT TO: <joe@example.net>\nReceived <<< 550 5.1.1 unknown\n\nUnable to deliver message to "
        "<joe@example.net>.\n",
    ),
    "smtp32": (
        {"From": "Postmaster <>", "Return_Path": "<>", "Subject": "Undeliverable Mail"},
        "User mailbox exceeds allowed size: joe@example.net\n\nOriginal message follows.\n\n" + COPY,
    ),
    "quoting-german": (
        {"From": "Mailzustellung <mailer-daemon@mx.example.net>", "Subject": "Unzustellbare Nachricht"},
        "Folgende Nachricht konnte nicht zugestellt werden:\n\n<joe@example.net>: unbekannter Empfänger\n\n" + COPY,
    ),
    "without-return-address": (
        {"From": "<>", "Return_Path": "<>", "Subject": "Warning: could not send message for past 4 hours"},
        "    **********************************************\n    **      THIS IS A WARNING MESSAGE ONLY      **\n"
        "\n   ----- The following addresses had transient non-fatal errors -----\n<joe@example.net>\n\n" + COPY,
    ),
    "gateway-by-a-list": (
        {"From": "inetgw1@gate.example.net", "Subject": "Mail could not be delivered", "List_Id": "<all.example.com>",
         "Return_Path": "<all-bounces@example.com>"},
        "The following mail could not be delivered.\n\nRecipient: joe@example.net\n\n" + COPY,
    ),
    "system-by-name": (
        {"From": "Jetmail System <jetmail>", "Subject": "Mail Error"},
        "Your mail cannot be delivered to the following address(es):\n\n joe@example.net: mail box space not enough\n\n"
        + COPY,
    ),
    "smtp-service": (
        {"From": "E500_SMTP_Mail_Service@gate.example.net", "Subject": "Returned Mail - Error During Delivery"},
        "------ Failed Recipients ------\n  <joe@example.net>: Requested action not taken\n\n" + COPY,
    ),
    "naming-fields": (
        {"From": '"System Administrator"@example.net', "Subject": "Delivery Failure"},
        "Your message\n  To:      Joe\n  Cc:      Ann\n  Subject: Your ticket 4711\n\ndid not reach:\n\n"
        "joe@example.net on Sat, 14 Mar 2026\n    unknown recipient\n",
    ),
    "domino-malformed": (
        {"From": "Mail Router@mx.example.net", "Subject": "Your ticket 4711"},
        "joe@example.net\nis not listed in the directory.\n",
    ),
    "domino-in-brackets": (
        {"From": "<Mail Router@mx.example.net>", "Subject": "DELIVERY FAILURE: User joe not listed"},
        "joe@example.net\nis not listed in the directory.\n",
    ),
    "telephone": (
        {"From": "post_master@pager.example.net", "Subject": "Re:Your ticket 4711",
         "In_Reply_To": "<orig@example.com>"},
        "Error: Invalid user address\n\n550 - no such user here\n\n  RCPT TO: joe@example.net\n",
    ),
    "telephone-pictures": (
        {"From": "MMSC NDR Administrator <sysadmin@pix.example.net>", "Subject": "Undeliverable Message"},
        "Message could not be delivered to mobile.\nError: No valid recipients for this MM\n\nOriginal Message:\n"
        "To: joe@example.net\n",
    ),
    "telephone-japanese": (
        {"From": "no-reply@mail.example.net", "Subject": "メールエラー通知", "Reply_To": "no-reply@app.example.net"},
        "Could not be delivered to: <joe@example.net>\n     As their mailbox is full.\n\n" + COPY,
    ),
    "scanner-japanese": (
        {"From": "InterScan MSS <scan@gate.example.net>", "Subject": "メッセージを配信できません。"},
        "Sent >>> RCPT TO: <joe@example.net>\nReceived <<< 550 5.1.1 unknown\n",
    ),
    "from-nobody": (
        {"From": "<>", "Return_Path": "<>", "Subject": None, "Auto_Submitted": "auto-replied",
         "In_Reply_To": "<orig@example.com>"},
        "You sent mail to joe@example.net. That is not a valid user here.\n",
    ),
    "list-server": (
        {"From": "users-admin@lists.example.net", "Subject": "Loop Alert: Duplicated Message-ID (users ML)",
         "Message_ID": "<202603140926.FMLAAA26207.users@lists.example.net>", "X_MLServer": "fml [fml 4.0.3 release]"},
        "Duplicated Message-ID in <joe@example.net>.\n\nOriginal mail as follows:\n\n" + COPY,
    ),
    "marked-by-a-field": (
        {"From": "service@mx.example.net", "Subject": "您的邮件", "X_Bounced_Version": "2026031400"},
        "joe@example.net\n550 Mailbox not found\n",
    ),
    "ses-notice": (
        {"From": "Notices <no-reply@sns.example.net>", "Subject": "AWS Notification Message",
         "x_amz_sns_message_id": "1"},
        '{"notificationType":"Bounce","bounce":{"bounceType":"Permanent","bouncedRecipients":[{"emailAddress":'
        '"joe@example.net","action":"failed","status":"5.1.1","diagnosticCode":"smtp; 550 5.1.1 user unknown"}]},'
        '"mail":{"messageId":"4711","destination":["joe@example.net"],"headers":[{"name":"!\n X-A","value":"b"}],'
        '"commonHeaders":{"subject":"Your ticket"}}}\n\n--\nIf you wish to stop receiving these\n',
    ),
    "path-of-a-daemon": (
        {"From": "IT <it@example.net>", "Return_Path": "<MAILER-DAEMON@example.net>", "Subject": "About your mail"},
        "joe@example.net\nis not here any more.\n",
    ),
}  # fmt: skip

_SUBJECTS = {
    "es": "No se puede entregar: ticket", "pt": "Não entregue: ticket", "it": "Non recapitabile: ticket",
    "nl": "Onbestelbaar: ticket", "da": "Kan ikke leveres: ticket", "sv": "Kunde inte levereras: ticket",
    "fi": "Perille toimittamaton: ticket", "pl": "Nie można dostarczyć: ticket", "cs": "Nedoručitelná zpráva: ticket",
    "hu": "Kézbesíthetetlen: ticket", "ro": "Imposibil de livrat: ticket", "ru": "Не удалось доставить: ticket",
    "uk": "Не вдалося доставити: ticket", "lv": "Nav piegādāts: ticket", "lt": "Nepavyko pristatyti: ticket",
    "et": "Kättetoimetamata: ticket", "el": "Δεν παραδόθηκε: ticket", "tr": "Teslim edilemedi: ticket",
    "zh": "无法投递: ticket", "ko": "배달되지 않음: ticket", "ja": "配信エラー: ticket", "he": "לא ניתן למסירה: ticket",
}  # fmt: skip


def mails() -> Iterator[tuple[str, str, bytes]]:
    for name, octets in _REPORTS.items():
        yield "bounce", f"report-{name}", octets
    for name, (fields, body) in _TEXTS.items():
        yield "bounce", f"text-{name}", mail(body, **fields)
    for language, subject in _SUBJECTS.items():
        body = f"joe@example.net\n550 unknown\n\n{COPY}"
        yield "bounce", f"words-{language}", mail(body, From="postmaster@mx.example.net", Subject=subject)
        yield "bounce", f"null-{language}", mail(body, From="it@example.net", Subject=subject, Return_Path="<>")
