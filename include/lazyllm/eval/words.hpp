// The words that generated tasks are made of: names, cities, jobs, pets, and parts of keys.
// None is a part of another of its list, and none occurs in the questions' own wording.
// Source: this library's.
#pragma once

#include <array>
#include <string_view>

namespace lazyllm::inline v0::words {

inline constexpr std::array<std::string_view, 24> names = {"Agnes",  "Bruno",  "Clara",  "Dmitri", "Elena",  "Felix",
                                                           "Greta",  "Hugo",   "Ingrid", "Jasper", "Karin",  "Lionel",
                                                           "Mabel",  "Norman", "Olga",   "Pablo",  "Quinn",  "Rosaline",
                                                           "Stefan", "Tamara", "Ulrich", "Vera",   "Walter", "Yvonne"};

inline constexpr std::array<std::string_view, 24> cities = {
    "Lisbon",   "Oslo",   "Toronto", "Nairobi", "Vienna",  "Sydney", "Dublin", "Prague",
    "Madrid",   "Boston", "Havana",  "Athens",  "Chicago", "Moscow", "Berlin", "Helsinki",
    "Montreal", "Lima",   "Bangkok", "Geneva",  "Warsaw",  "Denver", "Tokyo",  "Seattle"};

inline constexpr std::array<std::string_view, 16> jobs = {
    "dentist", "plumber", "librarian", "journalist", "photographer", "mechanic", "nurse",   "lawyer",
    "pilot",   "chemist", "tailor",    "violinist",  "surgeon",      "painter",  "teacher", "bookseller"};

inline constexpr std::array<std::string_view, 16> pets = {
    "hamster", "parrot", "tortoise", "ferret", "canary",     "iguana",   "goldfish", "rabbit",
    "poodle",  "kitten", "penguin",  "lizard", "chinchilla", "hedgehog", "gecko",    "monkey"};

inline constexpr std::array<std::string_view, 32> adjectives = {
    "amber",  "brisk",  "crimson", "dusty",  "eager",  "fuzzy",  "gentle", "hollow", "ivory",  "jolly",  "keen",
    "lively", "mellow", "nimble",  "orange", "polite", "quaint", "rusty",  "silent", "tender", "unique", "velvet",
    "wooden", "young",  "zesty",   "bold",   "clever", "dizzy",  "frosty", "glossy", "humble", "lucky"};

inline constexpr std::array<std::string_view, 32> nouns = {
    "anchor", "bakery", "castle",  "dolphin", "engine", "falcon",   "garage", "hammer", "island",  "jacket", "kettle",
    "ladder", "magnet", "napkin",  "orchard", "pencil", "quarry",   "rocket", "saddle", "tunnel",  "violin", "wagon",
    "yacht",  "zipper", "balloon", "candle",  "drum",   "fountain", "guitar", "helmet", "lantern", "museum"};

}  // namespace lazyllm::inline v0::words
