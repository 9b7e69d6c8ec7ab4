"""Made-up raw files in the eleven original shapes, of any size, to measure how prepare_data scales.

    python benchmarks/synthetic_records.py --records 100000 --out /tmp/raw

Nothing is copied from a data set. What matters to the algorithms follows the original as it was measured: the records of each
file, lengths, a vocabulary that grows with the 0.4th power of the text (Heaps), frequencies by rank (Zipf and Mandelbrot),
questions from templates, near-duplicates, patients with 30 turns of dialogue, groups of diseases, and the defects at their
rates. The words are English ones and invented ones; the sentences have no meaning.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "workflow_scripts"))
from ecg_grpo.raw_files import BY_CODE, RAW_FILES

RECORDS = {raw.code: raw.records for raw in RAW_FILES}
"""Records of the original files; of dialogues the turns."""
KNOWLEDGE = ("EBK", "CK", "CD", "PP", "PRTK")
DIALOGUES = ("MROD", "LTD", "MC")

NEAR_DUPLICATES, EXACT_DUPLICATES = 0.12, 0.01
TURNS_OF_A_PATIENT = 30
DEFECTS = {
    "empty question": 280,
    "truncated answer": 10,
    "lost mojibake": 40,
    "mojibake": 80,
    "curly quotes": 600,
    "html": 100,
    "patient number": 200,
}
"""Records with each defect, of `_CYCLE` records."""
_CYCLE = 20_000

_NOUNS = """
rhythm rate patient ventricle atrium interval wave segment complex conduction block ischemia infarction fibrillation
tachycardia bradycardia heart electrode lead axis voltage signal pressure valve node bundle branch therapy drug dose risk
symptom diagnosis treatment test study finding pattern cause change prognosis treadmill pacemaker syncope chest pain artery
vein flow muscle failure cardiomyopathy hypertrophy stenosis regurgitation murmur embolism edema dyspnea fatigue palpitation
stroke bleeding anticoagulant electrolyte potassium calcium magnesium sodium digoxin amiodarone quinidine statin aspirin
insulin glucose kidney liver lung brain nerve hormone gene mutation channel membrane repolarization depolarization impulse
automaticity reentry trigger pathway fiber septum apex wall chamber cusp aorta pericardium myocardium endocardium thrombus
plaque lesion stent bypass catheter ablation shock defibrillator monitor holter recorder amplifier filter baseline artifact
noise calibration paper speed gain amplitude duration slope onset offset peak notch delta wandering morphology deviation
elevation depression inversion prolongation shortening alternans escape capture fusion beat pause burst storm episode attack
relapse remission recovery rehabilitation exercise diet smoking alcohol obesity diabetes cholesterol lipid weight pregnancy
child athlete surgery anesthesia infection fever sepsis anemia thyroid inflammation myocarditis pericarditis endocarditis
vasculitis amyloid sarcoid fibrosis scar necrosis injury trauma tumor effusion tamponade constriction dilation remodeling
output volume preload afterload contractility resistance perfusion oxygen saturation ventilation intubation fluid diuretic
nitrate beta-blocker inhibitor antagonist agonist receptor enzyme troponin biomarker peptide hemoglobin platelet clot factor
antibody vaccine antibiotic guideline protocol score scale threshold criterion sensitivity specificity probability trial
cohort registry outcome mortality survival admission discharge referral consent privacy insurance explanation decision
preference question concern family caregiver nurse physician cardiologist clinic hospital ward ambulance emergency appointment
record report image echo ultrasound radiation contrast tomography resonance angiography biopsy sample sensor watch patch
battery device implant generator sheath wire pulse sound breath posture sleep stress anxiety sex age height temperature season
altitude travel work
""".split()
_ADJECTIVES = """
acute chronic normal abnormal left right anterior inferior lateral posterior septal apical basal atrial ventricular sinus
junctional nodal supraventricular paroxysmal persistent permanent intermittent sustained transient regular irregular narrow
wide broad tall deep inverted biphasic peaked flat early late premature delayed rapid slow severe moderate mild progressive
stable unstable symptomatic silent primary secondary congenital acquired familial hereditary dilated hypertrophic restrictive
ischemic valvular coronary pulmonary systemic venous arterial systolic diastolic electrical mechanical autonomic vagal
sympathetic metabolic toxic infectious inflammatory febrile renal hepatic thyroid neurological surgical percutaneous
endovascular invasive noninvasive oral intravenous daily weekly initial repeated serial dynamic static bilateral focal diffuse
global regional distal proximal medial elderly young pregnant obese diabetic hypertensive anxious high low intermediate
elevated reduced prolonged short long variable fixed typical atypical specific nonspecific reliable doubtful likely rare
common frequent occasional
""".split()
_VERBS = """
cause indicate suggest exclude confirm predict reduce increase prolong shorten delay accelerate suppress trigger prevent
worsen improve mimic mask reveal reflect accompany follow precede alter affect influence limit support require justify explain
modify control restore maintain measure detect distinguish localize quantify monitor record treat relieve stabilize impair
depress stimulate block enhance attenuate reverse complicate resemble define characterize determine guide postpone
""".split()
_SYLLABLES = """
al ar ba be bro ca cel cho cor cra da den dro du ec el en fa fer fi gan ge gli go har he hy im in jo ka ke la lem li lo mar me
mi mor na ner nu or pa per phe pla pro qua ra ren ri ro sal se si spi sta su ta ten thro ti tra tu ul va ven ver vi xe zo
""".split()
_ENDINGS = """
itis osis emia oma pathy gram graphy plasty tomy lysis genic tropic cardia volemia phylline olol pril sartan mycin statine
azole azine idone ium ine ate ide ose ance ency tion ture ment ness or ic al oid
""".split()

# Slots: T term (one or two words), N noun, A adjective, V verb, D a value with its unit, S the topic of the neighbouring rows.
_QUESTIONS = """
What is the role of {T} in {T}?
What is the clinical significance of {T} when {T} is seen with {T}?
How does {T} {V} the {N} in patients with {T}?
How can {T} be told apart from {T} when the {N} is {A}?
Why does {S} {V} {T} more often than {T} after {T}?
Why may {T} {V} the {N} although the {N} and the {N} remain {A}?
Which {N} is the best {N} for {T} in {T} with {T}?
Which features of the {T} suggest {T} rather than {T}?
When should {T} be considered in a patient with {S} and {A} {N}?
When is {T} contraindicated in {T}, and what {N} can replace it?
What are the most common causes of {T} in people with {T} and {T}?
What are the main steps in the {N} of {T} after {T}?
What does a {A} {N} in {S} mean for the {N} of {T}?
What happens to the {N} and the {N} if {T} is left without {T}?
How should {T} be managed if the {N} exceeds {D} despite {T}?
How is {S} measured, and which {N} is needed for a {A} {N}?
How do {T} and {T} {V} each other in {A} {N}?
How often should {T} be checked during {T} for {S}?
How long does {T} usually last once {T} has begun to {V} the {N}?
Is {T} a reliable sign of {T} when the {N} is above {D}?
Is it safe to combine {T} with {T} in a patient who has {T}?
Can {T} {V} the {N} without any change of the {A} {N}?
Can {S} be excluded if the {N} shows no {T} and no {T}?
Does {T} always {V} {T}, or are there {A} exceptions with {T}?
Does a {A} {N} in {T} increase the {N} of {T}?
Should {T} be stopped before {T} if the patient reports {T}?
Explain how {T} leads to {T} and why the {N} stays {A}.
Describe the mechanism by which {T} may {V} {S} in {A} {N}.
Describe the relation between {T} and {T} in the {N} of {T}.
Under what conditions does {T} {V} the {A} {N} of {S}?
In which patients with {T} does {T} {V} the {N} most?
In {S}, which {N} should raise the suspicion of {T}?
In patients with {T}, what {N} suggests that {T} will {V} the {N}?
To what extent can {T} {V} the {N} of {A} {N}?
For how long should {T} be continued after {A} {N} with {T}?
Do I have the right to know whether {T} will {V} my {N}?
May I refuse {T} if my {N} shows {A} {T}?
Who decides whether {T} or {T} is used for my {A} {N}?
Will my {N} be told about {T} before the {N} of {T}?
What are the {N} and the {N} of {T} with {T} for someone with {S}?
What {N} and {N} should be expected {D} after {T} for {T}?
What dose of {T} is used for {T}, and what {N} does it {V}?
What is the difference between {T} and {T} on the {N} of {A} {N}?
What is meant by {T}, and how does the {N} {V} it in {T}?
What is the expected {N} of {T} treated with {T} at {D}?
What is the value of {T} for the {N} of {S} after {A} {N}?
What distinguishes {T} with {A} {N} from {S} on a single {N}?
What prevents {T} from turning into {T} in the presence of {T}?
""".strip().splitlines()
_SENTENCES = """
The {T} may {V} the {N}, so {T} is usually preferred over {T}.
It reflects {T} in the {A} {N} and tends to {V} the {N} within {D}.
A {A} {N} above {D} suggests {T}, whereas a {A} {N} points to {T}.
Patients with {S} should have {T} and a {A} {N} before {T}.
This happens because {T} and {T} {V} the {N} of the {A} {N}.
In {S} the {N} is often {A}, and the {N} can {V} {T}.
If the {N} stays {A}, {T} or {T} should be added to {T}.
Without {T} the {N} rises to {D} and the {N} becomes {A}.
The main reason is {T}, which can {V} {T} and {V} the {N}.
Careful {N} of {T} helps to {V} {A} {N} and {T}.
Serial {N} and {T} make it possible to {V} the {A} {N} early.
{S} is confirmed by {T} together with {T} on the {N}.
Treatment begins with {T}, followed by {T} once the {N} is {A}.
The {N} must be {A} in at least {D} of the {N} with {T}.
Both {T} and {T} {V} the {N}, but only the first does so in {S}.
When {T} is present, the {A} {N} no longer {V} the {N}.
Regular {N}, {A} {N} and {T} reduce the risk of {T}.
A {N} of {T} should be explained, including {T} and the {A} {N}.
The patient can ask for {T} and decide against {T} at any time.
Most people with {T} recover after {D}, although {T} may {V} the {N}.
The {A} {N} of {T} differs from that of {T} by its {A} {N}.
Because {T} is {A}, the {N} cannot {V} {S} by itself.
""".strip().splitlines()
_FIRST_PERSON = """
What does my ECG show?
Is my heart rhythm normal?
Should I be worried about the {T}?
What does {T} mean for me?
Do I need {T} because of the {N}?
Can I go on with {N} if I have {T}?
I have felt {T} since the {N}, could it be {T}?
Which {N} should I have next, doctor?
Could the {A} {N} come from {T} that I had {D} ago?
How serious is the {N} compared with my last {N}?
""".strip().splitlines()
_REPORT_LINES = """
Sinus rhythm
Normal ECG
Abnormal ECG
Borderline ECG
Sinus {A} {N}
{T}
Possible {T}
Probable {A} {N}
{A} {N} deviation
Nonspecific {N} changes
Consider {T}
Cannot rule out {A} {N}, age undetermined
{T} with {A} {N}
Since the previous {N}, {T} is new
""".strip().splitlines()
_HEADINGS = ("Findings", "Risk factors", "Assessment", "Recommendations", "Follow-up", "Limits of this report")
_KINDS = ("syndrome", "disease", "cardiomyopathy", "arrhythmia", "defect", "deficiency")

_VALUE_FORMS = (
    *("{} ms", "{} mm", "{} mV", "{} beats per minute", "{} %", "{} days", "{} mg", "{} weeks", "{} mmHg", "{} hours"),
    *("≥{} ms", "≤{} mmHg", "{} °C"),
)


class Language:
    """Draws words and sentences from a vocabulary that grows as text is written.

    A word's frequency falls with its rank as 1 / (rank + `SHIFT`). The words written down above have the first ranks; every
    further one is invented when it is first needed. Neighbouring questions are about the same few topics. The constants give
    as many similar questions as the original has: a third has another at 0.72 or above among 5,000 (there: 0.31 of 2,205,
    0.46 of 5,363), and the shares hardly change with the number of records.

    Attributes:
        HEAPS, EXPONENT: size of the vocabulary is HEAPS * words ** EXPONENT.
        SHIFT: ranks over which the frequency is nearly the same.
        TOPICS: how many topics neighbouring questions share.
        OF_TOPIC: probability that a term is one of the topics.
        NEW_TOPICS: probability that the topics change before a question.
        TOPIC_POWER, TEMPLATE_POWER: the higher, the more often the first words and templates are drawn.
    """

    HEAPS, EXPONENT, SHIFT = 30, 0.4, 20
    TOPICS, OF_TOPIC, NEW_TOPICS = 3, 0.75, 0.04
    TOPIC_POWER, TEMPLATE_POWER = 2, 2.5

    def __init__(self, random: Random) -> None:
        self.random = random
        self._uniform = random.random
        self._nouns = list(_NOUNS)
        self._known = {*self._nouns, *_ADJECTIVES, *_VERBS}
        self._written = 0
        self._ratio = 1.0
        self.wrote(100_000)  # a beginning, or the first questions would draw from the written words alone
        self._turn = 0
        self.change_topics()
        self._values = [form.format(number) for form in _VALUE_FORMS for number in (*range(1, 10), *range(10, 400, 15))]
        self._draw = {
            "T": self.term,
            "N": self.noun,
            "A": self.adjective,
            "V": self.verb,
            "D": self.value,
            "S": self.topic,
        }
        self._questions = [self._compiled(text) for text in _QUESTIONS]
        self._sentences = [self._compiled(text) for text in _SENTENCES]
        self._first_person = [self._compiled(text) for text in _FIRST_PERSON]
        self._lines = [self._compiled(text) for text in _REPORT_LINES]

    def wrote(self, words: int) -> None:
        """Lets the vocabulary grow after so many more words."""
        self._written += words
        size = max(len(_NOUNS), int(self.HEAPS * self._written**self.EXPONENT))
        while len(self._nouns) < size:
            self._nouns.append(self.new_word())
        self._ratio = (len(self._nouns) + self.SHIFT) / self.SHIFT

    def new_word(self) -> str:
        """An invented word that was not there before."""
        random = self.random
        while True:
            word = "".join(random.choices(_SYLLABLES, k=random.choice((1, 2, 2, 3)))) + random.choice(_ENDINGS)
            if word not in self._known:
                self._known.add(word)
                return word

    def noun(self) -> str:
        """A word by its frequency: the logarithm of its shifted rank is uniform."""
        return self._nouns[int(self.SHIFT * self._ratio ** self._uniform()) - self.SHIFT]

    def adjective(self) -> str:
        """An adjective; early ones more often."""
        return _ADJECTIVES[int(len(_ADJECTIVES) * self._uniform() ** 1.5)]

    def verb(self) -> str:
        """A verb in its base form; early ones more often."""
        return _VERBS[int(len(_VERBS) * self._uniform() ** 1.5)]

    def term(self) -> str:
        """What a question is about: a noun, or one with a word before it."""
        if self._uniform() < self.OF_TOPIC:
            return self.topic()
        kind = self._uniform()
        if kind < 0.3:
            return self.noun()
        return f"{self.adjective()} {self.noun()}" if kind < 0.75 else f"{self.noun()} {self.noun()}"

    def value(self) -> str:
        """A number with its unit."""
        return self._values[int(len(self._values) * self._uniform())]

    def topic(self) -> str:
        """One of the things that neighbouring rows are about, each in its turn."""
        self._turn = (self._turn + 1) % len(self._topics)
        return self._topics[self._turn]

    def change_topics(self) -> None:
        """Begins with other topics."""
        self._topics = [self._new_topic() for _ in range(self.TOPICS)]

    def _new_topic(self) -> str:
        noun = self._nouns[int(len(self._nouns) * self._uniform() ** self.TOPIC_POWER)]
        return noun if self._uniform() < 0.3 else f"{self.adjective()} {noun}"

    def question(self) -> str:
        """A question of 8 to 20 words."""
        if self._uniform() < self.NEW_TOPICS:
            self.change_topics()
        return self._from(self._questions)

    def asked_by_patient(self) -> str:
        """A question as patients ask it, often in the same words."""
        return self._from(self._first_person)

    def report_line(self) -> str:
        """A line of what the recorder writes."""
        line = self._from(self._lines)
        return line[0].upper() + line[1:]

    def text(self, words: int) -> str:
        """Sentences, until there are so many words."""
        sentences = []
        while words > 0:
            sentence = self._from(self._sentences)
            sentences.append(sentence[0].upper() + sentence[1:])
            words -= sentence.count(" ") + 1
        return " ".join(sentences)

    def answer(self) -> str:
        """An answer of 15 to 60 words; one in eight says yes or no."""
        uniform = self._uniform
        text = self.text(int(12 + 42 * uniform() ** 2))
        return f"{'Yes' if uniform() < 0.6 else 'No'}, {text[0].lower()}{text[1:]}" if uniform() < 0.12 else text

    def _compiled(self, template: str) -> tuple[str, tuple[Callable[[], str], ...]]:
        parts = template.replace("%", "%%").split("{")
        slots = tuple(self._draw[part[0]] for part in parts[1:])
        return parts[0] + "".join("%s" + part[2:] for part in parts[1:]), slots

    def _from(self, templates: list[tuple[str, tuple[Callable[[], str], ...]]]) -> str:
        # Templates have frequencies too: the first ones of a list are used several times as often as the last.
        text, slots = templates[int(len(templates) * self._uniform() ** self.TEMPLATE_POWER)]
        return text % tuple([draw() for draw in slots])


class Damage:
    """Puts defects into questions and answers, each evenly spread over the records."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._seen = -1
        self._due: dict[int, str] = {}
        for defect, number in DEFECTS.items():
            for place in range(number):
                position = int((place + 0.5) * _CYCLE / number)
                while position in self._due:
                    position += 1
                self._due[position % _CYCLE] = defect

    def on(self, question: str, answer: str, patient: int | None = None, asks: bool = True) -> tuple[str, str]:
        """The pair as it gets into the file.

        Args:
            question: sound question.
            answer: sound answer, at least two words.
            patient: number of the patient, if there is one that could get into the text.
            asks: whether the file holds the question, which can then be empty.
        """
        self._seen += 1
        defect = self._due.get(self._seen % _CYCLE)
        if defect is None:
            return question, answer
        if defect == "empty question":
            return ("" if asks else question), answer
        if defect == "patient number":
            return question, answer if patient is None else f"For patient {patient}: {answer}"
        words = answer.split(" ")
        if defect == "truncated answer":
            return question, " ".join(words[: len(words) // 2 + 1]).rstrip(".,;:") + " of the"
        place = self._random.randrange((len(words) + 1) // 2)
        words[place] = self._broken(defect, words[place])
        return question, " ".join(words)

    def _broken(self, defect: str, word: str) -> str:
        random = self._random
        if defect == "curly quotes":
            return f"“{word}”" if random.random() < 0.5 else f"{word}’s"
        if defect == "html":
            return random.choice(("<b>{}</b>", "<br>{}", "<p>{}</p>", "{}&nbsp;")).format(word)
        # UTF-8 that was read as GBK. "≥" has three bytes of which the last is lost, "°" two that can be turned back.
        sign = f"(≥{random.randint(2, 9)} mm)" if defect == "lost mojibake" else f"({random.randint(34, 41)} °C)"
        return f"{word} {sign.encode().decode('gb18030', errors='replace')}"


@dataclass(frozen=True)
class Writing:
    """What all files share.

    Attributes:
        random: the only source of chance.
        language: makes the texts.
        damage: puts defects into them.
        patients: how many there are; the same in every file about patients.
    """

    random: Random
    language: Language
    damage: Damage
    patients: int

    def knowledge(self, code: str, records: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Rows of one of the five files that ask for knowledge."""
        random, language = self.random, self.language
        earlier: list[tuple[str, str, str]] = []
        disease, left = "", 0
        for _ in range(records):
            if code == "CD" and not left:
                disease = f"{language.new_word().capitalize()} {random.choice(_KINDS)}"
                left = 100 if random.random() < 0.01 else random.randint(4, 22)
                # Near-duplicates stay within a disease, or its questions would tie all diseases into one group.
                earlier.clear()
            left -= 1
            context, question, answer = self._question(code, earlier, disease)
            if len(earlier) < 4096:
                earlier.append((context, question, answer))
            else:
                earlier[int(4096 * random.random())] = (context, question, answer)
            question, answer = self.damage.on(question, answer)
            yield _knowledge_row(code, context, question, answer), 1

    def _question(self, code: str, earlier: list[tuple[str, str, str]], disease: str) -> tuple[str, str, str]:
        """Context, question and answer: new ones, or an earlier record's with or without a change."""
        language, kind = self.language, self.random.random()
        if not earlier or kind >= NEAR_DUPLICATES + EXACT_DUPLICATES:
            question = language.question()
            if code == "CD":
                if self.random.random() < 0.77:
                    question = f"In {disease}, {question[0].lower()}{question[1:]}"
                return disease, question, language.answer()
            return language.text(8) if code == "PP" else "", question, language.answer()
        context, question, answer = earlier[int(len(earlier) * self.random.random())]
        if kind < EXACT_DUPLICATES:
            return context, question, answer
        part = (kind - EXACT_DUPLICATES) / NEAR_DUPLICATES
        if part < 0.25:  # the same question again, with another answer
            return context, question, language.answer()
        return context, self._changed(question), self._changed(answer) if part < 0.6 else language.answer()

    def _changed(self, text: str) -> str:
        """The text with one or two words replaced, never the first or the last."""
        words = text.split(" ")
        for _ in range(1 if self.random.random() < 0.7 else 2):
            words[1 + int((len(words) - 2) * self.random.random())] = self.language.noun()
        return " ".join(words)

    def about_patients(self, code: str, records: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Rows of one of the six files about patients, each with its number of turns."""
        random = self.random
        make = {"CMD": self._cross_modal, "GRA": self._risk, "MEE": self._entities}.get(code)
        row, turns, done = {}, 0, 0
        while done < records:
            if not row or turns > records - done or random.random() >= EXACT_DUPLICATES:
                patient = 10_000_000 + done * self.patients // records * 9973 % 9_000_000
                if make:
                    row, turns = make(patient), 1
                else:
                    fewest, most = {"MROD": (3, 10), "LTD": (2, 5), "MC": (3, 7)}[code]
                    turns = min(random.randint(fewest, most), records - done)
                    row = self._conversation(patient, turns) if code == "MC" else self._dialogue(patient, turns)
            done += turns
            yield row, turns

    def _summary(self, patient: int) -> dict[str, Any]:
        self.language.change_topics()
        lines = [self.language.report_line() for _ in range(self.random.randint(3, 8))]
        return {"subject_id": patient, "result": lines if self.random.random() < 0.2 else "; ".join(lines) + "."}

    def _asked(self) -> str:
        return self.language.asked_by_patient() if self.random.random() < 0.5 else self.language.question()

    def _cross_modal(self, patient: int) -> dict[str, Any]:
        """The question stands under `A`, the answer under `Q`, as in the original."""
        random, language = self.random, self.language
        number = int(random.random() * 9e7) + 10_000_000
        row: dict[str, Any] = {"subject_id": patient, "study_id": number, "cart_id": number % 9_000_000 + 1_000_000}
        row["ecg_time"] = f"21{10 + number % 80}-0{1 + number % 9}-1{number % 10} 0{number % 7}:1{number % 5}:00"
        lines = random.randint(3, 8)
        row |= {f"report_{line}": language.report_line() for line in range(lines)} | {f"report_{lines}": None}
        row |= {"bandwidth": "0.005-150 Hz", "filtering": "60 Hz notch"}
        onset = random.randint(160, 260)
        row |= {"rr_interval": random.randint(400, 1300), "p_onset": 40, "p_end": random.randint(120, 160)}
        row |= {"qrs_onset": onset, "qrs_end": onset + random.randint(70, 160), "t_end": onset + random.randint(300, 480)}
        row |= {"p_axis": random.randint(-30, 90), "qrs_axis": random.randint(-90, 180), "t_axis": random.randint(-90, 180)}
        if random.random() < 0.05:
            row["p_axis"] = row["p_onset"] = 29999
        row["A"], row["Q"] = self.damage.on(self._asked(), language.answer(), patient)
        return row

    def _turns(self, patient: int, turns: int, asks: bool = True) -> list[tuple[str, str]]:
        return [self.damage.on(self._asked(), self.language.answer(), patient, asks) for _ in range(turns)]

    def _dialogue(self, patient: int, turns: int) -> dict[str, Any]:
        pairs = self._turns(patient, turns)
        if self.random.random() < 0.5:
            return self._summary(patient) | {"QA": [{"Q": question, "A": answer} for question, answer in pairs]}
        typed = {f"Type {place}": {"Question": pair[0], "Answer": pair[1]} for place, pair in enumerate(pairs, start=1)}
        return self._summary(patient) | {"QA": typed}

    def _conversation(self, patient: int, turns: int) -> dict[str, Any]:
        said = [
            {role: text}
            for pair in self._turns(patient, turns, asks=False)
            for role, text in zip(("patient", "doctor"), pair, strict=True)
        ]
        middle = 2 * (turns // 2)
        phases = {"Initial phase": said[:middle], "Correction phase": said[middle:]}
        if self.random.random() < 0.1:
            phases["Initial phase"].insert(0, {"doctor": self.language.text(10)})
        return self._summary(patient) | {"Conversation": phases}

    def _risk(self, patient: int) -> dict[str, Any]:
        """A report of 300 to 1,500 words: a text, a list of paragraphs or paragraphs with titles."""
        random, words = self.random, self.random.randint(50, 250)
        paragraphs = {heading: self.language.text(words) for heading in _HEADINGS}
        _, paragraphs["Assessment"] = self.damage.on("", paragraphs["Assessment"], patient, asks=False)
        form = random.random()
        if form < 0.05:
            return self._summary(patient) | {"RA": list(paragraphs.values())}
        if form < 0.1:
            return self._summary(patient) | {"RA": paragraphs}
        text = "\n\n".join(f"**{heading}**\n{text}" for heading, text in paragraphs.items())
        return self._summary(patient) | {"RA": text}

    def _entities(self, patient: int) -> dict[str, Any]:
        entities = [self.language.term() for _ in range(self.random.randint(4, 15))]
        _, text = self.damage.on("", ", ".join(entities), patient, asks=False)
        return self._summary(patient) | {"keywords": text if self.random.random() < 0.6 else text.split(", ")}


def _knowledge_row(code: str, context: str, question: str, answer: str) -> dict[str, str]:
    if code == "PRTK":
        return {"Question": question, "Answer": answer}
    before = {"CD": {"Disease": context}, "PP": {"medical_advice": context}}.get(code, {})
    return before | {"Q": question, "A": answer}


def records_of_files(records: int, knowledge_only: bool) -> dict[str, int]:
    """How many records each file gets: the original proportions, rounded so that the sum is right."""
    shares = {code: number for code, number in RECORDS.items() if not knowledge_only or code in KNOWLEDGE}
    counts, so_far, given = {}, 0, 0
    for code, number in shares.items():
        so_far += number
        counts[code] = round(records * so_far / sum(shares.values())) - given
        given += counts[code]
    return counts


_ROWS_HELD = 500


def write_raw_files(folder: Path, records: int, seed: int = 0, knowledge_only: bool = False) -> dict[str, int]:
    """Writes the raw files and returns how many records each has. Only a few rows are held at a time.

    Args:
        folder: where they go; made if it is not there.
        records: how many in all; of dialogues the turns count.
        seed: the same seed and size, the same bytes.
        knowledge_only: only the five files of single questions, the hard case for the search for near-duplicates.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(seed)
    counts = records_of_files(records, knowledge_only)
    patients = max(1, sum(counts.get(code, 0) for code in DIALOGUES) // TURNS_OF_A_PATIENT)
    writing = Writing(random, Language(random), Damage(random), patients)
    for code, number in counts.items():
        rows = (writing.knowledge if code in KNOWLEDGE else writing.about_patients)(code, number)
        _write_array(folder / BY_CODE[code].name, (row for row, _ in rows), writing.language)
    return counts


def _write_array(file: Path, rows: Iterator[dict[str, Any]], language: Language) -> None:
    encode = json.JSONEncoder(ensure_ascii=False).encode
    held: list[str] = []
    with file.open("w", encoding="utf-8") as stream:
        separator = "[\n"

        def write() -> None:
            nonlocal separator
            text = ",\n".join(held)
            stream.write(separator + text)
            language.wrote(text.count(" "))
            separator = ",\n"
            held.clear()

        for row in rows:
            held.append(encode(row))
            if len(held) == _ROWS_HELD:
                write()
        if held or separator == "[\n":
            write()
        stream.write("\n]\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, required=True, help="how many records in all files together")
    parser.add_argument("--out", type=Path, required=True, help="folder for the raw files")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other texts (default: 0)")
    parser.add_argument("--knowledge-only", action="store_true", help="only the five files of single questions")
    arguments = parser.parse_args()
    if arguments.records < 1:
        parser.error("--records must be at least 1")
    started = time.perf_counter()
    counts = write_raw_files(arguments.out, arguments.records, arguments.seed, arguments.knowledge_only)
    seconds = time.perf_counter() - started
    for code, number in counts.items():
        print(f"{number:9,}  {BY_CODE[code].name}")
    print(f"{sum(counts.values()):9,}  records in {seconds:.1f} s")


if __name__ == "__main__":
    main()
