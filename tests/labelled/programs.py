"""What programs send on their own: lists, newsletters, reports, calendars, notices."""

from __future__ import annotations

from collections.abc import Iterator

from labelled.made import mail, multipart

_LISTS = {
    "mailman": {"List_Id": "Users <users.lists.example.org>", "List_Unsubscribe": "<mailto:u@example.org>",
                "Precedence": "list", "Subject": "[users] a question"},
    "list-id-alone": {"List_Id": "<dev.example.org>"},
    "google-groups": {"List_Id": "<g.googlegroups.example>", "Mailing_List": "list g@googlegroups.example",
                      "X_Google_Group_Id": "1", "Precedence": "list"},
    "majordomo": {"Precedence": "list", "Sender": "owner-users@example.org"},
    "ezmlm": {"Mailing_List": "contact users-help@example.org; run by ezmlm", "Precedence": "bulk"},
    "kernel": {"X_Mailing_List": "linux-x@example.org", "Precedence": "bulk"},
    "sympa": {"X_Sympa_To": "users@example.org", "Precedence": "list"},
    "github": {"List_Id": "o/r <r.o.github.example>", "Precedence": "list", "X_GitHub_Reason": "mention"},
    "absence-on-a-list": {"List_Id": "<all.example.org>", "Subject": "Out of office: Friday"},
    "bounce-talk-on-a-list": {"List_Id": "<mailops.example.org>", "Subject": "Undeliverable: what to do?"},
    "auto-generated-to-a-list": {"List_Id": "<commits.example.org>", "Auto_Submitted": "auto-generated"},
    "list-post": {"List_Post": "<mailto:users@example.org>"},
    "person-on-a-list": {"List_Id": "<users.example.org>", "User_Agent": "Mozilla Thunderbird",
                         "Subject": "Re: [users] a question"},
    "fml": {"X_MLServer": "fml [fml 4.0.3 release]", "Subject": "Re: a question"},
    "x-beenthere": {"X_BeenThere": "users@example.org"},
}  # fmt: skip
_BULK = {
    "newsletter": {"List_Unsubscribe": "<https://example.org/u>", "Subject": "Our spring collection"},
    "one-click": {"List_Unsubscribe": "<https://example.org/u>", "List_Unsubscribe_Post": "List-Unsubscribe=One-Click"},
    "precedence": {"Precedence": "bulk", "Subject": "Our spring collection"},
    "junk": {"Precedence": "junk", "Subject": "Offers"},
    "campaign": {"X_CampaignID": "4711"},
    "csa": {"X_CSA_Complaints": "whitelist-complaints@example.org"},
    "parcel": {"List_Unsubscribe": "<https://example.org/u>", "From": "noreply@parcels.example",
               "Subject": "Delivery failed: we missed you"},
}  # fmt: skip
_GENERATED = {
    "ticket": {"Auto_Submitted": "auto-generated", "Subject": "Re: [#4711] your question"},
    "notified": {"Auto_Submitted": "auto-notified", "Subject": "Voice mail"},
    "odd-word": {"Auto_Submitted": "yes", "Subject": "Job done"},
    "shop": {"Auto_Submitted": "auto-generated", "From": "shop@example.org", "Subject": "Your order has been shipped"},
    "backup": {"Auto_Submitted": "auto-generated", "Subject": "Automatic: backup finished"},
    "shop-delayed": {"Auto_Submitted": "auto-generated", "From": "noreply@example.org", "Subject": "Delivery delayed"},
    "cron": {"X_Cron_Env": "<SHELL=/bin/sh>", "From": "root@host.example.org", "Subject": "Cron <root@host> run"},
    "jira": {"X_JIRA_FingerPrint": "abc", "Auto_Submitted": "auto-generated", "Precedence": "bulk",
             "Subject": "[JIRA] (ABC-1) a task"},
    "suppress": {"X_Auto_Response_Suppress": "All", "From": "no-reply@example.org", "Subject": "Sign-in code"},
    "vacation-request": {"Auto_Submitted": "auto-generated", "Subject": "[HR] A vacation request was approved"},
    "unsubscribable": {"Auto_Submitted": "auto-generated", "List_Unsubscribe": "<https://example.org/u>"},
}  # fmt: skip
_CALENDARS = {
    "request": {"Content_Type": "text/calendar; method=REQUEST; charset=utf-8"},
    "reply": {"Content_Type": 'text/calendar; method="REPLY"; charset=utf-8', "Subject": "Accepted: meeting"},
    "outlook": {"Content_Class": "urn:content-classes:calendarmessage", "X_Mailer": "Microsoft Outlook 16.0"},
    "cancelled-by-a-program": {"Content_Type": "text/calendar; method=CANCEL", "Auto_Submitted": "auto-generated"},
}  # fmt: skip
_PART = "Content-Type: text/plain\n\nThis is a report.\n"
_MDN = (
    "Content-Type: message/disposition-notification\n\nFinal-Recipient: rfc822; joe@example.net\n"
    "Disposition: manual-action/MDN-sent-manually; displayed\n"
)
_ARF = "Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: X/1\nVersion: 1\n"
_REPORTS: dict[str, tuple[str, dict[str, str | None]]] = {
    "mdn": (multipart("report", _PART, _MDN), {
        "Content_Type": "multipart/report; report-type=disposition-notification; boundary=b",
        "Subject": "Read: my order"}),
    "mdn-null": (multipart("report", _PART, _MDN), {
        "Content_Type": "multipart/report; report-type=disposition-notification; boundary=b", "Return_Path": "<>",
        "Subject": "Gelesen: Bestellung"}),
    "mdn-without-type": (multipart("report", _PART, _MDN), {"Content_Type": "multipart/report; boundary=b"}),
    "mdn-as-text": ("Your message was read.\n", {"Subject": "Gelesen: Bestellung", "Return_Path": "<>"}),
    "arf": (multipart("report", _PART, _ARF), {
        "Content_Type": "multipart/report; report-type=feedback-report; boundary=b", "Subject": "FW: my order",
        "From": "fbl@provider.example"}),
    "arf-without-type": (multipart("report", _PART, _ARF), {"Content_Type": "multipart/report; boundary=b"}),
    "dmarc": ("zip", {"Subject": "Report Domain: example.com Submitter: provider.example Report-ID: 1",
                      "From": "noreply-dmarc@provider.example",
                      "Content_Type": "application/zip; name=provider.example!example.com!1773446400!1773532799.zip"}),
    "dmarc-mixed": ("x", {"Subject": "Report domain: example.com submitter: provider.example report-id: <1>",
                          "Content_Type": "multipart/mixed; boundary=b", "From": "postmaster@provider.example"}),
    "dmarc-by-name": ("x", {"Subject": "Aggregate", "Content_Type": "application/gzip",
                            "Content_Disposition":
                                "attachment; filename=provider.example!example.com!1773446400!1773532799.xml.gz"}),
    "dmarc-null": ("x", {"Subject": "[Preview] Report Domain: example.com Submitter: provider.example Report-ID: 1",
                         "Return_Path": "<>"}),
    "tls-rpt": ("x", {"TLS_Report_Domain": "example.com", "TLS_Report_Submitter": "provider.example",
                      "Content_Type": 'multipart/report; report-type="tlsrpt"; boundary=b',
                      "Subject": "Report Domain: example.com Submitter: provider.example Report-ID: <1@p.example>"}),
    "tls-rpt-gzip": ("x", {"Content_Type": "application/tlsrpt+gzip", "Subject": "TLS report"}),
    "jmrp": ("x", {"X_HmXmrOriginalRecipient": "joe@example.net", "Subject": "complaint about message from 192.0.2.7",
                   "From": "staff@hotmail.example"}),
    "feedback": ("x", {"Subject": "Email Feedback Report for IP 192.0.2.7", "From": "scomp@provider.example"}),
    "dmarc-failure": ("x", {"Subject": "DMARC Forensic Report for example.com from IP 192.0.2.7",
                            "From": "no-reply@provider.example", "Auto_Submitted": "auto-replied"}),
    "dmarc-failure-boxed": ("x", {"Subject": "[Provider DMARC Failure Report] my order",
                                  "From": "abuse@provider.example", "Content_Type": "multipart/mixed; boundary=b"}),
    "abuse-boxed": ("x", {"Subject": "[Provider Abuse Report] my order", "From": "fbl@provider.example"}),
    "ses-complaint": ('{"eventType":"Complaint","complaint":{},"mail":{}}\n', {
        "x_amz_sns_message_id": "1", "From": "no-reply@sns.example.net", "Subject": "AWS Notification Message"}),
    "spamcop": ("x", {"Subject": "[SpamCop (192.0.2.7) id:1234567890]my order", "From": "1@reports.spamcop.example"}),
}  # fmt: skip


def mails() -> Iterator[tuple[str, str, bytes]]:
    kinds = {"list": _LISTS, "bulk": _BULK, "auto-generated": _GENERATED, "calendar": _CALENDARS}
    for kind, table in kinds.items():
        for name, fields in table.items():
            yield kind, f"{kind}-{name}", mail(**fields)
    for name, (body, fields) in _REPORTS.items():
        yield "report", f"report-{name}", mail(body, **fields)
