"""Subjects that programs write, in the languages in which they write them.

A phrase counts at the very beginning of a subject, and only if it ends there or a colon follows: ``Automatic reply:
your order`` is written by a program, ``Automatic reply does not work`` by a person. Behind a ``Re:`` it is somebody's
answer, and then never counts alone.
"""

from __future__ import annotations

import re

_TAG = re.compile(
    r"\[[^\[\]]{0,30}\]\s*+|\{[^{}]{0,30}\}\s*+|\*{2,5}[^*]{0,30}\*{2,5}\s*+|(?:external|extern|spam)\s*+:\s*+"
)
_REPLY = re.compile(
    r"(?:re|fwd?|fw|aw|wg|sv|vs|antw|rv|res|enc|tr|i|r|odp|pd|ynt|回复|回覆|转发|答复|返信|re\[\d{1,3}\])\s?[:：]"
)
_ANSWERING = re.compile(
    r"(?:re|aw|sv|vs|antw|res|ref|rif|r|odp|ynt|atb|vá|απ|回复|回覆|答复|返信|re\[\d{1,3}\])\s?[:：]"
)
_PREFIX = re.compile(r"\w{1,6}\s?[:：]")
_AUTOMATIC = re.compile(
    r"(?:automatick[ýáéya]|automati[ck]|automated|automatisch[er]?|automatique|automátic[oa]|automatic[oa]|"
    r"automatyczn[ayie]|automatiskt?|automaattinen|automatikus|automată|автоматическ(?:ий|ое|ая|и)|автоматичен|"
    r"автоматичн[аи]|автоматски|automātisk[ai]|automatinis|automaatne|otomatik|samodejni|avtomatski|automatski|"
    r"αυτόματ[ηο]|自動|自动|자동|تلقائي|אוטומטי)\s?[:：]"
)
_DATED = re.compile(
    r"\d|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day|\b(?:mon|tue|wed|thu|fri)\b|\b(?:jan|feb|mar|apr|may|jun|jul|aug|"
    r"sep|oct|nov|dec)[a-z]*+\b|\b(?:today|tomorrow|tonight|next|this|week|weekend|morning|afternoon|from|until|till|"
    r"through|holiday|holidays|vacation|leave|sick|pto)\b"
)
_CONSIDERED = 300
_OPENING = frozenset(("[", "{", "*", "("))
_BOXED = re.compile(r"[\[{(*]{1,5}([^\[\]{}()*]{3,40})[\]})*]{1,5}[\s:-]*+")
_GONE = (
    r"(?:(?:is|am|will be) (?:currently )?(?:out of|away|not in|on (?:vacation|leave|holiday))|"
    r"(?:ist|bin) (?:derzeit )?(?:abwesend|nicht im|außer haus|ausser haus|im urlaub)|"
    r"(?:est|suis|sera) (?:absent|en congé|en vacances)|(?:está|estará) (?:ausente|fuera|fora|de vacaciones|de férias)|"
    r"(?:è|é|sarà) (?:assente|fuori|in ferie)|is (?:afwezig|niet op)|jest (?:poza|nieobecn)|je mimo|"
    r"är (?:inte|ej) på|er (?:ikke på|fraværende)|on poissa|отсутствует|вне офиса)"
)
_NOTES = re.compile(
    rf"auto: .{{1,150}}?\b{_GONE}|auto: .{{1,150}}\("
    r"(?:return|rückkehr|wieder|zurück|retour|regres|ritorn|rientr|terug|powr|tillbaka|tilba|návrat|palaa|"
    r"vissza|volt)[^()]{0,60}\d[^()]{0,20}\)"
)
"""What Lotus Notes writes: ``AUTO: Ada Byron is out of the office (returning 01.02.2026)``."""
_OWN_ABSENCE = re.compile(rf"(.{{2,100}}?) {_GONE}")
SURE, LIKELY = "sure", "likely"

_ANSWERS = """
automatic reply|automatic response|automated reply|automated response|auto reply|auto-reply|autoreply|auto response
auto-response|autoresponse|autoresponder|auto responder|auto-responder|auto-answer|auto answer
out of office autoreply|out of office auto reply|out of office reply|out of office response|out of office message
out of office notification|out-of-office reply|vacation reply|vacation response|vacation message|vacation notice
vacation autoreply|automated message|automatic message|automatic notification of receipt|auto acknowledgement
automatische antwort|automatische rückantwort|automatische antwortmail|auto-antwort|autoantwort|abwesenheitsnotiz
abwesenheitsmeldung|abwesenheitsnachricht|abwesenheitsassistent|abwesenheitsbenachrichtigung|abwesenheitsinformation
abwesenheitsinfo|abwesenheitsagent|automatische abwesenheitsnotiz|automatische eingangsbestätigung|urlaubsnotiz
automatische rueckantwort|automatisch generierte antwort|automatische nachricht|urlaubsbenachrichtigung
réponse automatique|reponse automatique|message d'absence|notification d'absence|réponse d'absence|avis d'absence
message automatique|réponse automatisée|absence du bureau|message d’absence|respuesta automática
respuesta automatica|respuesta automática de ausencia|mensaje automático|contestación automática|resposta automática
resposta automatica|resposta automàtica|mensagem automática|aviso de ausência|risposta automatica
messaggio automatico|risponditore automatico|avviso di assenza|automatisch antwoord|automatische beantwoording
afwezigheidsbericht|afwezigheidsmelding|afwezigheidsassistent|automatisch bericht|automatische reactie
automatisk svar|autosvar|fraværsbesked|fraværsmelding|automatiskt svar|frånvaromeddelande|automatsvar
fraværsassistent|automaattinen vastaus|poissaoloilmoitus|automaattivastaus|poissaoloviesti|odpowiedź automatyczna
automatyczna odpowiedź|odpowiedz automatyczna|automatyczna odpowiedz|autoodpowiedź|autoodpowiedz|automatická odpověď
automatická odpoveď|automaticka odpoved|automatická zpráva|samodejni odgovor|avtomatski odgovor|automatski odgovor
automatsko odgovaranje|automatizirani odgovor|аутоматски одговор|automatikus válasz|automatikus válaszlevél
automatikus valasz|házon kívül üzenet|răspuns automat|raspuns automat|автоматичен отговор|автоматический ответ
автоматическое сообщение|автоответ|автоответчик|автоматична відповідь|автовідповідь|автоматски одговор
automātiska atbilde|automātiskā atbilde|automatiska atbilde|automātisks paziņojums|automatinis atsakymas
automatinis atsakas|automatinis pranešimas|automaatne vastus|automaatvastus|automaatne teade|αυτόματη απάντηση
otomatik yanıt|otomatik cevap|otomatik yanit|sjálfvirkt svar|freagra uathoibríoch|erantzun automatikoa
תשובה אוטומטית|מענה אוטומטי|رد تلقائي|الرد التلقائي|پاسخ خودکار|स्वचालित उत्तर|自動応答|自動返信|自动答复|自动回复
自動回覆|自動答覆|自动应答|不在通知|不在のお知らせ|不在応答|休暇応答|休假自动回复|外出自动回复|자동 회신|자동회신
자동 응답|자동응답|부재중 자동|부재중 회신|부재중 알림|trả lời tự động|ตอบกลับอัตโนมัติ|การตอบกลับอัตโนมัติ
balasan otomatis|balasan automatik|jawapan automatik|përgjigje automatike|ateb awtomatig|tweġiba awtomatika
автоматты жауап|автоматтык жооп|автомат җавап|автомат хариу|аўтаматычны адказ|avtomatik cavab|avtomatik javob
ավտոմատ պատասխան|ავტომატური პასუხი|outomatiese antwoord|automatesch äntwert|awtomatikong tugon|jibu la kiotomatiki
jibu otomatiki|خودکار جواب|স্বয়ংক্রিয় উত্তর|স্বয়ংক্রিয় জবাব|स्वयंचलित उत्तर|स्वचालित जवाफ|સ્વચાલિત જવાબ|ਸਵੈਚਲਿਤ ਜਵਾਬ
ಸ್ವಯಂಚಾಲಿತ ಪ್ರತ್ಯುತ್ತರ|യാന്ത്രിക മറുപടി|தானியங்கு பதில்|స్వయంచాలక ప్రత్యుత్తరం|ការឆ្លើយតបស្វ័យប្រវត្តិ|ራስ-ሰር ምላሽ
"""
_ABSENCES = """
out of office|out of the office|out-of-office|out-of-the-office|outofoffice|ooo|ooto|away from office|on vacation
away from the office|away from my mail|away from my desk|on annual leave|on leave|on holiday|on maternity leave
i am out of the office|i'm out of the office|i am out of office|i am away|i am on vacation
i am currently out of office|absence notification|i am on leave|i'm away|currently out of the office|vacation
i am currently away|not in the office|abwesenheit|abwesend|nicht im büro|außer haus|ausser haus|nicht im haus
ich bin nicht im büro|ich bin nicht im haus|außerhalb des büros|im urlaub|ich bin im urlaub|bin im urlaub
ich bin abwesend|urlaub|ich bin außer haus|nicht am platz|absent du bureau|absence|en congé|je suis absent
je suis absente|absent|en vacances|hors du bureau|absente|congés|fuera de la oficina|fuera de oficina|ausente
ausencia|de vacaciones|estoy de vacaciones|no estoy en la oficina|estoy fuera de la oficina|fora do escritório
fora de escritório|ausência|ausência do escritório|ausente do escritório|estou de férias|de férias|em férias
fora da oficina|fuera de la oficina automático|fora de l'oficina|fuori sede|fuori ufficio|assenza dall'ufficio
assenza|assente|non sono in ufficio|in ferie|sono in ferie|afwezig|afwezigheid|niet op kantoor|niet aanwezig
met vakantie|op vakantie|ik ben afwezig|buiten kantoor|ikke til stede|fraværende|ikke på kontoret|fravær|ferie
på ferie|ej på kontoret|inte på kontoret|frånvarande|frånvaro|på semester|semester|är inte på kontoret|poissa
poissaolo|lomalla|olen lomalla|poissa toimistosta|en ole toimistolla|poza biurem|nieobecność|nieobecny|nieobecna
nieobecność w biurze|urlop|jestem na urlopie|nieobecnosc|mimo kancelář|mimo kancelárie|nepřítomnost|neprítomnosť
jsem mimo kancelář|dovolená|dovolenka|nepřítomen|házon kívül|irodán kívül|távollét|szabadságon|szabadság
în afara biroului|absent din birou|in concediu|în concediu|извън офиса|отсъствие|отсъствие от офиса|вне офиса
нет на работе|отсутствие на работе|в отпуске|отпуск|я в отпуске|отсутствую|поза офісом|відсутність|у відпустці
відсутність на роботі|ārpus biroja|prombūtnē|prombūtne|esmu prombūtnē|atvaļinājumā|atvaļinājums|neesmu birojā
esmu atvaļinājumā|promešana|ne biure|nesu biure|atostogos|atostogauju|esu atostogose|kontorist väljas
kontorist eemal|puhkusel|olen puhkusel|εκτός γραφείου|απουσία|σε άδεια|ofis dışında|iş yeri dışında|işyeri dışında
yıllık izin|izindeyim|van ureda|izvan ureda|odsoten|odsotnost|na dopustu|na godišnjem odmoru|ван канцеларије
מחוץ למשרד|לא במשרד|בחופשה|خارج المكتب|في إجازة|不在|外出中|外出|休假|休暇中|出差|不在办公室|不在辦公室|休暇|부재중
부재 중|휴가|휴가중|외근|vắng mặt|không có ở văn phòng|tidak di kantor|di luar kantor|cuti|ไม่อยู่ที่สำนักงาน
ลาพักร้อน|ausencia temporal|ausência temporária|нет на месте|меня нет на месте|нет в офисе|відсутній в офісі
відсутня в офісі|απουσία από το γραφείο|λείπω από το γραφείο|odsutan|odsutna|odsutnost|nisam u uredu
nisam u kancelariji|nuk jam në zyrë|jashtë zyrës|prom no biroja
"""
_CHALLENGES = """
please confirm your message|please confirm your e-mail|please verify your message|sender verification
verify your email|confirm you are human|your message requires verification|message verification
verification required|please authenticate|your email requires verification|challenge message
please confirm delivery of your message|spam arrest verification|action required to deliver your message
sender confirmation required|sender address verification|[boxbe]|awaiting your verification|please confirm (conf#
confirm your mail|confirmation required to deliver|bitte bestätigen sie ihre nachricht
bitte bestätigen sie ihre e-mail|absenderbestätigung|absenderüberprüfung|confirmez votre message
veuillez confirmer votre message|vérification de l'expéditeur|confirme su mensaje|confirmación de remitente
confirme sua mensagem|conferma il tuo messaggio|antispam uol|antispamuol|[antispam uol]|potwierdź swoją wiadomość
подтвердите отправку|подтвердите ваше письмо|подтвердите, что вы не спамер
"""
_RECEIPTS = """
read:|read receipt|return receipt|receipt:|gelesen:|lesebestätigung|ungelesen gelöscht:|not read:|lu :|lu:|leído:
leido:|lida:|lido:|letto:|gelezen:|læst:|läst:|lest:|luettu:|przeczytano:|přečteno:|prečítané:|olvasott:|citit:
прочтено:|прочитано:|izlasīts:|lasīts:|perskaityta:|loetud:|αναγνώστηκε:|okundu:|נקרא:|開封済み:|已读:|已讀:|읽음:
disposition notification|message disposition notification|deleted:|gelöscht:|accusé de lecture|displayed:
confirmación de lectura|confirmação de leitura|conferma di lettura|leesbevestiging
"""
_BOUNCES = """
undeliver|delivery status notification|delivery status|delivery failure|delivery has failed|delivery failed
delivery report|delivery notification|delivery problem|delivery error|delivery delay|delivery unsuccessful
delivery warning|delivery incomplete|deliver failure|delivery final failure|delivery attempt|failure notice
failed delivery|failure delivery|failure to deliver|mail delivery|mail system error|mail failure|mail error
email error|message delivery|email delivery|mail routing|returned mail|returned to sender|return to sender
returned message|returned email|return mail|mail returned|mail was not delivered|message not delivered
could not be delivered|couldn't be delivered|could not deliver|couldn't deliver|not delivered|not been delivered
cannot be delivered|can't be delivered|cannot deliver|unable to deliver|unable to be delivered|failed to deliver
wasn't delivered|was not delivered|not yet been delivered|was not sent|not be sent|undeliverable|nondeliver
non-deliver|non deliver|undelivered|message rejected|mail rejected|email rejected|rejected mail|rejected message
rejected:|blocked:|message you sent|could not send|warning: message|message delayed|mail delayed|delayed mail
delayed:|delayed delivery|still undelivered|message status|user unknown|unknown user|address not found
unknown address|unknown recipient|invalid recipient|invalid address|recipient unknown|no such user
mailbox unavailable|mailbox full|over quota|quota exceeded|message blocked|mail blocked|error sending|sending failed
dsn:|ndn:|ndr:|bounce|bounced|non-delivery|problem delivering|problems delivering|transmission failure|mailer-daemon
message failure|warning: could not|message could not|status notification|message bounced|email returned
permanent failure|transient failure|unzustellbar|nicht zugestellt|nicht zustellbar|zustellung|zustellfehler
zustellungs|fehler beim zustellen|nicht ausgeliefert|fehler beim versand|konnte nicht|wurde nicht zugestellt
übermittlung|unzustellbare|rückläufer|mail-fehler|verzögert|versandfehler|échec de|échec d'|non remis|non remise
non distribu|avis de non|n'a pas pu être|non délivré|retour à l'expéditeur|erreur de|message non livré
message retourné|remise différée|remise retardée|no se puede entregar|no entregado|no se ha podido|no se pudo
devuelto|devolución|error de entrega|entrega retrasada|entrega fallida|notificación de estado|fallo de entrega
fallo en la entrega|error al entregar|no se entregó|imposible entregar|mensaje no|não entregue|não foi entregue
não pôde ser|falha na entrega|falha de entrega|falha no envio|mensagem devolvida|devolvido|devolvida
notificação de status|entrega atrasada|impossível entregar|não é possível entregar|erro na entrega|mancato recapito
mancata consegna|non recapitabile|impossibile recapitare|consegna fallita|non consegnat|avviso di mancat
messaggio non|errore di consegna|consegna ritardata|recapito non riuscito|recapito ritardato|mail non consegnata
anomalia messaggio|onbestelbaar|niet bezorgd|niet worden bezorgd|niet afgeleverd|niet worden afgeleverd
bezorging mislukt|aflevering|retour afzender|bezorgfout|kan niet leveres|kan ikke leveres|ikke leveret|ikke levert
leveringsfeil|leveringsfejl|uleveret|ikke-leverbar|ikke leverbar|kunde inte levereras|kan inte levereras
går inte att leverera|inte levereras|ej levererat|leveransfel|misslyckad leverans|olevererat|perille toimittamaton
toimitus epäonnistui|ei voi toimittaa|toimitus ei|toimittaminen epäonnistui|ei voitu toimittaa|toimitusvirhe
nie można dostarczyć|niedostarcz|nie dostarczono|zwrot|niedoręcz|nie zosta|błąd dostarcz|nieudane dostarcz
nie udało się|nedoručiteln|nelze doručit|nedoručen|nebylo doručeno|nebola doručená|chyba doručení|nedoručiteľn
nie je možné doručiť|nedostavljiv|ni mogoče dostaviti|nije moguće isporučiti|neisporuč|nedostavljen|nekézbesít
kézbesítetlen|kézbesíthetetlen|kézbesítési hiba|sikertelen kézbesítés|imposibil de livrat|nelivrat
nu a putut fi livrat|livrare eșuată|livrare esuata|nedostavka|недоставен|не може да бъде|неуспешна доставка
не удалось доставить|не доставлен|недоставлен|невозможно доставить|ошибка доставки|не было доставлено
не может быть доставлено|возвращено|уведомление о|отчет о доставке|не може бути доставлено|не доставлено
помилка доставки|не вдалося доставити|nav piegādāts|nevar piegādāt|neizdevās piegādāt|nepiegādāt|piegādes kļūda
nepavyko pristatyti|nepristatyt|neįmanoma pristatyti|nepristatomas|kohale toimetada|kättetoimetamata
ei saanud kohale|kohaletoimetamine|edastamine nurjus|toimetamatu|δεν είναι δυνατή η παράδοση|δεν παραδόθηκε
αποτυχία παράδοσης|μη παραδ|teslim edilemedi|iletilemedi|teslim edilemeyen|gönderilemedi|teslimat başarısız
לא ניתן למסירה|המסירה נכשלה|לא נמסר|تعذر التسليم|فشل تسليم|لم يتم تسليم|غير قابل للتسليم|配信不能|配信できません
配信エラー|配信に失敗|配信失敗|送信できません|送信エラー|エラーメール|メールエラー|未送達|配達不能|配達できません|配送失敗
届きません|无法投递|投递失败|退信|未能送达|传递失败|無法傳遞|無法遞送|退件|无法送达|系统退信|發送失敗|发送失败
未送达|無法送達|传送失败|傳送失敗|郵件退回|배달되지|배달 실패|배달하지|전송 실패|전송실패|반송|발송 실패
수신자를 찾을|전달되지|không thể gửi|gửi không thành công|không gửi được|ไม่สามารถส่ง|การส่งล้มเหลว|ไม่สามารถจัดส่ง
gagal mengirim|tidak terkirim|gagal terkirim|tidak dapat dikirim
"""
_OF_MAIL = """
undeliver|nondeliver|non-deliver|delivery status notification|delivery failure|failure notice|mail delivery
returned mail|returned message|returned email|returned e-mail|mail returned|message not delivered|message delivery
mail system error|mail failure|mail error|mail could not|mail was not delivered|message rejected|mail rejected
warning: could not send|warning: message|message delayed|mail delayed|user unknown|unknown user|no such user
mailbox unavailable|unknown recipient|recipient unknown|message undeliver|message could not be delivered
message you sent blocked|nondelivery|unzustellbar|mail-fehler|nicht zustellbar|non remis|avis de non
message non distribu|no se puede entregar|correo devuelto|não entregue|mensagem devolvida|mancato recapito
non recapitabile|mancata consegna|onbestelbaar|kan ikke leveres|kan niet worden bezorgd|kunde inte levereras
går inte att leverera|nie można dostarczyć|nedoručiteln|kézbesítetlen|kézbesíthetetlen|imposibil de livrat
не удалось доставить|недоставлен|не доставлен|配信不能|配信エラー|退信|无法投递|無法傳遞|未送達|エラーメール
배달되지|반송|メールエラー|配信できません|配信に失敗|送信できません
"""
_DELAYS = (
    "delay", "warning", "still undelivered", "not yet", "will be retried", "will retry", "verzögert", "retard",
    "différée", "atrasad", "ritardat", "vertraag", "forsink", "försenat", "försenad", "opóźn", "zpožd", "задерж",
    "отложен", "késlel", "遅延", "延迟", "延遲", "지연", "could not send message for past",
)  # fmt: skip


def _phrases(table: str) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(phrase.casefold() for line in table.splitlines() for phrase in line.split("|") if phrase)
    )


def _beginning(phrases: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The phrases by their first two characters, the longest first."""
    found: dict[str, list[str]] = {}
    for phrase in sorted(phrases, key=len, reverse=True):
        found.setdefault(phrase[:2], []).append(phrase)
    return {start: tuple(those) for start, those in found.items()}


_ALL_ANSWERS, _ALL_ABSENCES = _phrases(_ANSWERS), _phrases(_ABSENCES)
_ALL_BOUNCES, _ALL_CHALLENGES, _ALL_RECEIPTS = _phrases(_BOUNCES), _phrases(_CHALLENGES), _phrases(_RECEIPTS)
_ALL_OF_MAIL = _phrases(_OF_MAIL)
_ANSWERS_BY, _ABSENCES_BY = _beginning(_ALL_ANSWERS), _beginning(_ALL_ABSENCES)
_SAID_BY_PROGRAMS = frozenset(_ALL_ANSWERS)
_LONG_ABSENCES = tuple(phrase for phrase in _ALL_ABSENCES if " " in phrase or len(phrase) > 10)
_REPORTS = ("report domain:", "report domain ", "[preview] report domain", "dmarc aggregate report", "dmarc report for")
_ABUSE = re.compile(
    r"complaint about message from|email feedback report for|abuse report (?:for|from)\b|\[spamcop \(|"
    r"feedback loop report|fbl report|spam complaint (?:from|for)|\[\w{1,20}(?: dmarc failure| abuse) report\]|"
    r"dmarc (?:failure|forensic) report for\b"
)
_SOURCE = re.compile(r"\d|@|\w\.\w|\[")
"""Whose mail it is about, as programs write it. People complain as well, of neighbours."""

HEADS = frozenset(
    phrase[:3]
    for phrase in (*_ALL_ANSWERS, *_ALL_ABSENCES, *_ALL_CHALLENGES, *_REPORTS, *_ALL_OF_MAIL)
) | frozenset(("com", "ema", "abu", "fee", "fbl", "spa", "ext", "[bo", "[an", "[sp", "[pr"))  # fmt: skip
"""The first three characters, casefolded, of all that can tell something alone. What begins otherwise and with no
bracket needs no second look."""


def may_tell(subject: str) -> bool:
    """A quick look: False for a subject that tells nothing of what wrote it."""
    head = subject[:3].casefold()
    if head in HEADS or head[:2] in HEADS:
        return True
    if head[:1] not in _OPENING:
        return False
    told = folded(subject)
    return is_abuse(told) or not HEADS.isdisjoint((told[:3], told[:2]))


def folded(subject: str) -> str:
    """The subject for comparison: without the tags that gateways put before it."""
    text = " ".join(subject[:_CONSIDERED].casefold().replace("’", "'").split())
    for _ in range(3):
        tag = _TAG.match(text)
        if tag is None or text.startswith(("[boxbe]", "[antispam", "[spamcop", "[preview]")):
            break
        if tag[0].strip().strip("[]{}*") in _SAID_BY_PROGRAMS or is_abuse(text):
            break
        text = text[tag.end() :]
    boxed = _BOXED.match(text) if text[:1] in _OPENING else None
    if boxed is not None and boxed[1] in _SAID_BY_PROGRAMS:
        rest = text[boxed.end() :]  # [Auto-Reply] Re: order; without the Re: a person might speak of such answers
        return f"{boxed[1]}: {rest}" if is_reply(rest) else boxed[1]
    return text


def is_reply(text: str) -> bool:
    """True for ``Re:``, ``Fwd:`` and their kin: somebody, or something, answers or passes on."""
    return _REPLY.match(text) is not None


def passes_on(text: str) -> bool:
    """True for ``Fwd:``, and for any other short word and a colon that is not known to mark an answer."""
    return _PREFIX.match(text) is not None and _ANSWERING.match(text) is None


def is_automatic(text: str) -> bool:
    """True for an adjective alone that some servers write over an answer, as in ``Automatický: …``; what else calls
    itself so is most often a report of a machine."""
    return _AUTOMATIC.match(text) is not None


def is_absence_about(text: str) -> bool:
    """True for ``Out of Office: my order``, False for ``Out of Office: Friday``, which a person announces."""
    head, _, about = text.partition(":")
    return head in ("out of office", "out of the office") and bool(about.strip()) and _DATED.search(about) is None


def without_reply(text: str) -> str:
    """What is answered, or passed on."""
    for _ in range(5):
        found = _REPLY.match(text)
        if found is None:
            break
        text = text[found.end() :].lstrip()
    return text


def is_answer(text: str) -> str:
    """What a program writes over an answer: :data:`SURE` for ``Automatic reply: …``, which nobody else writes,
    :data:`LIKELY` if no colon follows, and "" for anything else."""
    if text.startswith("auto: ") and _NOTES.match(text) is not None:
        return SURE
    return _begins(text, _ANSWERS_BY)


def is_absence(text: str) -> str:
    """The same for what programs write over an answer, and people too at times: ``Out of office: …``."""
    return _begins(text, _ABSENCES_BY)


def is_own_absence(text: str, name: str) -> bool:
    """True for ``Ada Byron is out of the office.`` of a sender of that ``name``: what Notes wrote once."""
    found = _OWN_ABSENCE.match(text)
    named = set(re.findall(r"[^\W\d_]{2,}", name))
    return found is not None and bool(named) and named <= set(re.findall(r"[^\W\d_]{2,}", found[1]))


def speaks_of_absence(text: str) -> bool:
    """True if there is anything of the kind anywhere: tells something beside other evidence only."""
    return any(phrase in text for phrase in _ALL_ANSWERS) or any(phrase in text for phrase in _LONG_ABSENCES)


def speaks_of_a_bounce(text: str) -> bool:
    """True if there is wording of a bounce anywhere: tells something beside other evidence only."""
    return any(phrase in text for phrase in _ALL_BOUNCES)


def speaks_of_mail_that_bounced(text: str) -> bool:
    """The same without what is said of parcels too."""
    return any(phrase in text for phrase in _ALL_OF_MAIL)


def speaks_of_a_delay(text: str) -> bool:
    return any(phrase in text for phrase in _DELAYS)


def is_challenge(text: str) -> bool:
    return text.startswith(_ALL_CHALLENGES)


def is_receipt(text: str) -> bool:
    """True for a notice that a message was read: tells something beside other evidence only."""
    return text.startswith(_ALL_RECEIPTS)


def is_dmarc(text: str) -> bool:
    """RFC 7489 section 7.2.1.1, and what some write instead."""
    return text.startswith(_REPORTS)


def is_abuse(text: str) -> bool:
    found = _ABUSE.match(text)
    return found is not None and _SOURCE.search(text) is not None


def _begins(text: str, phrases: dict[str, tuple[str, ...]]) -> str:
    for phrase in phrases.get(text[:2], ()):
        if text.startswith(phrase):
            rest = text[len(phrase) :].lstrip()
            if rest.startswith((":", "：")):
                return SURE
            return LIKELY if not rest or rest[0] in '(-–—[<"!|.' else ""
    return ""
