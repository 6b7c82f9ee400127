"""What may be true of a person: nine attributes of sixteen values, and what follows from three.

Every value is one word that stands for nothing else here: it belongs to one attribute only and to
no phrase, so that finding it in an answer means that the answer names it. What follows from a
value (a city's country) is common knowledge: it is the same for everyone, so a base learns it from
other people, and a question about it needs one step beyond what the person has told.
"""

from types import MappingProxyType

ATTRIBUTES = MappingProxyType(
    {
        name: tuple(values.split())
        for name, values in {
            "home": "Lisbon Oslo Vienna Dublin Athens Warsaw Prague Budapest Helsinki Madrid Rome"
            " Cairo Nairobi Lima Tokyo Hanoi",
            "job": "nurse baker carpenter teacher plumber lawyer pilot florist dentist welder"
            " librarian butcher tailor surveyor translator mechanic",
            "pet": "dog cat rabbit parrot hamster tortoise ferret canary goldfish gecko horse goat"
            " donkey hen llama hedgehog",
            "pet_name": "Biscuit Pepper Nugget Muffin Waffle Bandit Shadow Ziggy Pickle Rusty Mocha"
            " Domino Pebbles Cosmo Noodle Bramble",
            "allergy": "peanuts sesame eggs wheat soy hazelnuts dairy squid mustard strawberries"
            " tomatoes garlic coconut lobster chickpeas basil",
            "dish": "lasagne risotto paella goulash moussaka ramen pierogi tacos curry fondue"
            " gnocchi stew chili pancakes dumplings ratatouille",
            "drink": "tea espresso cider lemonade kefir chai matcha rooibos stout cappuccino mead"
            " sherry kombucha buttermilk vermouth tonic",
            "instrument": "piano violin cello flute guitar trumpet harp clarinet banjo drums"
            " trombone bassoon mandolin harmonica saxophone tuba",
            "sister": "Clara Ingrid Monica Fatima Priya Helen Yuki Rosa Agnes Beatrice Zoe Nadia"
            " Olga Tessa Miriam Leila",
        }.items()
    }
)

# Consequence -> the attribute it follows from. Its values stand in the order of that attribute's.
FOLLOWS_FROM = MappingProxyType({"country": "home", "hazard": "pet", "forbidden_food": "allergy"})

CONSEQUENCES = MappingProxyType(
    {
        name: dict(zip(ATTRIBUTES[FOLLOWS_FROM[name]], values.split(), strict=True))
        for name, values in {
            "country": "Portugal Norway Austria Ireland Greece Poland Czechia Hungary Finland Spain"
            " Italy Egypt Kenya Peru Japan Vietnam",
            "hazard": "grapes lilies foxgloves avocado almonds daffodils onions mistletoe copper"
            " fireflies ragwort azaleas acorns rhubarb oleander milk",
            "forbidden_food": "satay tahini meringue couscous tofu praline custard calamari"
            " vinaigrette shortcake ketchup aioli macaroons bisque hummus pesto",
        }.items()
    }
)
