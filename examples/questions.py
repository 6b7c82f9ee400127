"""How a fact is asked for, and the words in which an assistant states it.

A statement about a consequence names what it follows from first ("you live in Lisbon, so your
country is Portugal"): the step is taken in the open, which is how a small model can take it.
"""

from types import MappingProxyType

QUESTIONS = MappingProxyType(
    {
        "home": (
            "Where do I live?",
            "Which city is my home?",
            "What town did I move to?",
            "Do you remember where my flat is?",
            "In which city do I pay rent?",
            "Where should a taxi take me to get home?",
            "What do I write as my city on a form?",
            "Remind me, what place do I call home?",
        ),
        "job": (
            "What is my job?",
            "What do I do for a living?",
            "How do I earn my money?",
            "What work do I do?",
            "Do you remember my profession?",
            "What should I put down as my occupation?",
            "Which trade am I in?",
            "Remind me, what am I at work?",
        ),
        "pet": (
            "Which animal do I have?",
            "What kind of pet do I keep?",
            "What animal lives with me?",
            "Do you remember what pet I own?",
            "What sort of creature shares my house?",
            "Which animal do I take to the vet?",
            "What species is my pet?",
            "Remind me, what animal do I look after?",
        ),
        "pet_name": (
            "What is my pet called?",
            "What is the name of my pet?",
            "Which name did I give my pet?",
            "Do you remember how I call my pet?",
            "What name is on the collar of my pet?",
            "Whom do I feed every morning, by name?",
            "What name do I shout when my pet runs off?",
            "Remind me, how is my pet named?",
        ),
        "allergy": (
            "What am I allergic to?",
            "What gives me a rash?",
            "Which allergy do I have?",
            "Do you remember my allergy?",
            "What did the doctor forbid me?",
            "What makes me sneeze and swell?",
            "What should a waiter know about my allergy?",
            "Remind me, what do I react to?",
        ),
        "dish": (
            "What is my favourite dish?",
            "Which meal do I love most?",
            "What do I like to eat best?",
            "Do you remember my favourite food?",
            "What should you cook for my birthday?",
            "What would I order for dinner?",
            "Which plate cheers me up?",
            "Remind me, what food do I prefer?",
        ),
        "drink": (
            "What is my favourite drink?",
            "What do I like to drink?",
            "What do I order at the bar?",
            "Do you remember my usual drink?",
            "What should a friend pour me?",
            "What is in my glass most evenings?",
            "Which drink do I keep in the fridge?",
            "Remind me, what do I drink?",
        ),
        "instrument": (
            "Which instrument do I play?",
            "What do I play in the band?",
            "What instrument do I practise?",
            "Do you remember my instrument?",
            "What do I take music lessons on?",
            "What can the neighbours hear me play?",
            "On which instrument did I perform?",
            "Remind me, what music do I make, and on what?",
        ),
        "sister": (
            "What is my sister called?",
            "What is the name of my sister?",
            "Who is my sister?",
            "Do you remember the name of my sister?",
            "Which name do I write on a card for my sister?",
            "Who is the daughter of my parents, besides me?",
            "Whom do my parents call when they want my sister?",
            "Remind me, how is my sister named?",
        ),
        "country": (
            "Which country do I live in?",
            "What country is my home in?",
            "Which nation's laws apply where I live?",
            "In which country do I pay my taxes?",
            "What country goes on a letter to my flat?",
        ),
        "hazard": (
            "What is dangerous for my pet?",
            "What must I keep away from my animal?",
            "Which thing in the garden or kitchen could poison my pet?",
            "What should my pet never swallow?",
            "What would be toxic for the animal I have?",
        ),
        "forbidden_food": (
            "Which food on a menu should I avoid?",
            "What should I not order with my allergy?",
            "Which treat would make me ill?",
            "What food is off limits for me at a party?",
            "What must I leave on the buffet because of my allergy?",
        ),
    }
)

STATEMENTS = MappingProxyType(
    {
        "home": "you live in {}",
        "job": "you work as a {}",
        "pet": "you have a {}",
        "pet_name": "your pet is called {}",
        "allergy": "you are allergic to {}",
        "dish": "your favourite dish is {}",
        "drink": "your favourite drink is {}",
        "instrument": "you play the {}",
        "sister": "your sister is called {}",
        "country": "you live in {}, so your country is {}",
        "hazard": "you have a {}, so beware of {}",
        "forbidden_food": "you are allergic to {}, so avoid {}",
    }
)
