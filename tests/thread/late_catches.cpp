// late_catches.cpp - the library that late.c loads.
#include <exception>

extern "C" int late_catches(void (*stop)(), int value)
{
    try {
        throw value;
    } catch (int first) {
        stop(); // others throw and catch meanwhile
        try {
            throw; // the one that is caught here
        } catch (int again) {
            return first == value && again == value && std::uncaught_exceptions() == 0;
        }
    }
}
