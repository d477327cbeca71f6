"""What programs answer while nobody is there, and what they ask before they let a mail pass."""

from __future__ import annotations

from collections.abc import Iterator

from labelled.made import mail

_AUTOMATIC = {
    "en": "Automatic reply: my order", "en-2": "Auto-Reply: my order", "en-3": "Autoreply: my order",
    "en-4": "Out of Office AutoReply: my order", "de": "Automatische Antwort: Bestellung",
    "de-2": "Abwesenheitsnotiz: Bestellung", "de-3": "Abwesenheitsnachricht: Bestellung",
    "fr": "Réponse automatique : commande", "fr-2": "Message d'absence : commande",
    "es": "Respuesta automática: pedido", "pt": "Resposta automática: pedido", "it": "Risposta automatica: ordine",
    "nl": "Automatisch antwoord: bestelling", "nl-2": "Afwezigheidsbericht: bestelling",
    "da": "Automatisk svar: ordre",
    "sv": "Autosvar: order", "sv-2": "Frånvaromeddelande: order", "no": "Fraværsmelding: ordre",
    "fi": "Automaattinen vastaus: tilaus", "fi-2": "Poissaoloilmoitus: tilaus",
    "pl": "Odpowiedź automatyczna: zamówienie",
    "cs": "Automatická odpověď: objednávka", "sk": "Automatická odpoveď: objednávka",
    "sl": "Samodejni odgovor: naročilo",
    "hr": "Automatski odgovor: narudžba", "hu": "Automatikus válasz: rendelés", "ro": "Răspuns automat: comandă",
    "bg": "Автоматичен отговор: поръчка", "ru": "Автоматический ответ: заказ", "ru-2": "Автоответ: заказ",
    "uk": "Автоматична відповідь: замовлення", "lv": "Automātiska atbilde: pasūtījums",
    "lt": "Automatinis atsakymas: užsakymas", "et": "Automaatne vastus: tellimus",
    "el": "Αυτόματη απάντηση: παραγγελία",
    "tr": "Otomatik yanıt: sipariş", "he": "תשובה אוטומטית: הזמנה", "ar": "رد تلقائي: طلب", "ja": "自動応答: 注文",
    "ja-2": "自動返信: 注文", "zh": "自动答复: 订单",
    "zh-tw": "自動回覆: 訂單", "ko": "자동 회신: 주문",
    "vi": "Trả lời tự động: đơn hàng",
    "th": "ตอบกลับอัตโนมัติ: คำสั่งซื้อ", "id": "Balasan otomatis: pesanan", "is": "Sjálfvirkt svar: pöntun",
    "ca": "Resposta automàtica: comanda",
}  # fmt: skip
_ABSENT = {
    "en": "Out of Office: my order", "en-2": "Out of the office", "en-3": "I am on vacation",
    "de": "Abwesenheit: Bestellung", "de-2": "Ich bin nicht im Büro", "fr": "Absent du bureau : commande",
    "es": "Fuera de la oficina: pedido", "pt": "Fora do escritório: pedido", "it": "Fuori sede: ordine",
    "nl": "Afwezig: bestelling", "sv": "Ej på kontoret: order", "fi": "Poissa: tilaus", "pl": "Poza biurem: zamówienie",
    "cs": "Mimo kancelář: objednávka", "hu": "Házon kívül: rendelés", "ro": "În afara biroului: comandă",
    "ru": "Вне офиса: заказ", "lv": "Ārpus biroja: pasūtījums", "lv-2": "Esmu prombūtnē", "lt": "Nesu biure: užsakymas",
    "et": "Kontorist väljas: tellimus", "el": "Εκτός γραφείου: παραγγελία", "tr": "Ofis dışında: sipariş",
    "ja": "不在: 注文", "zh": "外出: 订单", "ko": "부재중: 주문", "da": "Ikke på kontoret: ordre",
}  # fmt: skip
_MARKED = {
    "auto-replied": {"Auto_Submitted": "auto-replied", "Subject": "Re: my order"},
    "auto-replied-vacation": {"Auto_Submitted": "auto-replied (vacation)", "Subject": "Re: my order"},
    "auto-replied-parameter": {"Auto_Submitted": "auto-replied; owner-email=\"jane@example.org\""},
    "auto-replied-by-a-client": {"Auto_Submitted": "auto-replied", "User_Agent": "Mozilla Thunderbird"},
    "exchange": {"Auto_Submitted": "auto-generated", "X_Auto_Response_Suppress": "All",
                 "Subject": "Automatic reply: my order"},
    "x-autoreply": {"X_Autoreply": "yes", "Subject": "Re: my order"},
    "x-autorespond": {"X_Autorespond": "my order", "Subject": "Thank you"},
    "x-auto-reply-from": {"X_Autoreply_From": "jane@example.org"},
    "x-mail-autoreply": {"X_Mail_Autoreply": "jane@example.org"},
    "precedence": {"Precedence": "auto_reply", "Subject": "Thank you for your mail"},
    "x-precedence": {"X_Precedence": "auto_reply"},
    "vacation-program": {"Precedence": "bulk", "Subject": "Re: my order (away from my mail)"},
    "vacation-junk": {"Precedence": "junk", "Subject": "Out of office"},
    "answer-behind-re": {"Return_Path": "<>", "Subject": "Re: Out of office: my order"},
    "null-return-path": {"Return_Path": "<>", "Subject": "Re: my order"},
    "null-return-path-thanks": {"Return_Path": "<>", "Subject": "Thank you for contacting us"},
    "suppress-and-subject": {"X_Auto_Response_Suppress": "OOF", "Subject": "Abwesenheit"},
    "tagged": {"Subject": "[EXTERNAL] Automatic reply: my order"},
    "tagged-stars": {"Subject": "***SPAM*** Abwesenheitsnotiz: Bestellung"},
    "delivered-to-autoresponder": {"Delivered_To": "Autoresponder", "Subject": "Your request"},
    "notes": {"Subject": "AUTO: Ada Byron is out of the office (returning 01.02.2026)"},
    "notes-german": {"Subject": "AUTO: Ada Byron ist nicht im Hause (Rückkehr 01.02.2026)"},
    "boxed": {"Subject": "[Auto-Reply] Your request", "In_Reply_To": "<orig@example.com>"},
    "boxed-reply": {"Subject": "[AutoReply] Re: my order"},
    "round-boxed": {"Subject": "(Automatic reply) my order", "Precedence": "bulk"},
    "temporary": {"Subject": "Ausência temporária: pedido", "Auto_Submitted": "auto-generated"},
    "amazon": {"Subject": "Re: my order", "X_Amazon_Auto_Reply": "true"},
    "message-class": {"Subject": "Thank you", "X_POST_MessageClass": "9; Autoresponder"},
    "vacation-by-mailer": {"Subject": "Re: my order", "Precedence": "junk", "X_Mailer": "vacation 1.2.7"},
    "through-a-list": {"Auto_Submitted": "auto-replied", "List_Id": "<all.example.com>", "Precedence": "list"},
    "x-autogenerated": {"X_Autogenerated": "Reply", "Subject": "Thank you"},
    "receipt-by-a-help-desk": {"Auto_Submitted": "auto-replied", "Subject": "We have received your request [#4711]"},
    "inbox-rule": {"Auto_Submitted": "auto-generated", "X_MS_Exchange_Inbox_Rules_Loop": "jane@example.org",
                   "Subject": "Re: my order", "In_Reply_To": "<orig@example.com>"},
    "inbox-rule-template": {"X_MS_Exchange_Generated_Message_Source": "Mailbox Rules Agent",
                            "X_MS_Exchange_Inbox_Rules_Loop": "jane@example.org",
                            "Subject": "Thank you for your mail", "References": "<orig@example.com>"},
    "exchange-5.5": {"Subject": "Out of Office: my order", "X_Mailer": "Internet Mail Service (5.5.2653.19)"},
    "adjective-czech": {"Subject": "Automatický: objednávka", "Auto_Submitted": "auto-generated",
                        "In_Reply_To": "<orig@example.com>"},
    "adjective-german": {"Subject": "Automatisch: Bestellung", "X_Auto_Response_Suppress": "All",
                         "In_Reply_To": "<orig@example.com>"},
    "adjective-russian": {"Subject": "Автоматический: заказ", "Precedence": "bulk", "References": "<o@example.com>"},
    "adjective-japanese": {"Subject": "自動: 注文", "Auto_Submitted": "auto-generated",
                           "In_Reply_To": "<orig@example.com>"},
    "null-return-path-bulk": {"Return_Path": "<>", "Precedence": "bulk", "Subject": "Thank you for your e-mail"},
    "null-return-path-of-exchange": {
        "Received": "from mx.example.org by mail.example.com; Sat, 14 Mar 2026 09:26:52 +0000", "Return_Path": "<>",
        "X_MS_Exchange_Organization_AuthSource": "AM0.mail.example.com", "Subject": "Re: my order"},
    "apple": {"X_Apple_Action": "VACATION", "Subject": "Nyaan", "In_Reply_To": "<orig@example.com>"},
    "from-a-daemon-absent": {"From": "Postmaster <postmaster@example.org>", "Subject": "Out of Office: my order",
                             "Return_Path": "<>"},
}  # fmt: skip
_CHALLENGES = {
    "spamarrest": {"From": "Jane <jane@spamarrest.com>", "Subject": "Re: my order (Verification)", "Return_Path": "<>"},
    "tmda": {"X_TMDA_Fingerprint": "abc", "Subject": "Please confirm your message"},
    "boxbe": {"From": "Boxbe <notifications@boxbe.com>", "Subject": "[Boxbe] Please verify",
              "Auto_Submitted": "auto-replied"},
    "uol": {"From": "AntiSpam UOL <nao-responda@antispamuol.example>", "Return_Path": "<>",
            "Subject": "[AntiSpam UOL] confirme sua mensagem"},
    "english": {"Subject": "Please verify your message", "In_Reply_To": "<orig@example.com>"},
    "german": {"Subject": "Bitte bestätigen Sie Ihre Nachricht", "Auto_Submitted": "auto-replied"},
    "russian": {"Subject": "Подтвердите отправку письма", "Return_Path": "<>"},
    "bluebottle": {"X_Bluebottle_Request": "<1234>", "Subject": "RE: my order"},
    "sender": {"Subject": "Sender verification required", "Precedence": "bulk"},
}  # fmt: skip


def mails() -> Iterator[tuple[str, str, bytes]]:
    for language, subject in _AUTOMATIC.items():
        yield "auto-reply", f"automatic-{language}", mail(Subject=subject)
    for language, subject in _ABSENT.items():
        yield "auto-reply", f"absent-{language}", mail(Subject=subject, In_Reply_To="<orig@example.com>")
    for name, fields in _MARKED.items():
        yield "auto-reply", f"marked-{name}", mail(**fields)
    for name, fields in _CHALLENGES.items():
        yield "challenge", f"challenge-{name}", mail(**fields)
