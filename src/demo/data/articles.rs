//! The help centre of the example's shop: short articles as a support team writes them.

use chrono::Duration;
use serde_json::json;

use super::random::Random;
use super::{DAYS, shop, stamp};

/// (title, body) of the articles that were written one by one.
const WRITTEN: [(&str, &str); 38] = [
    (
        "How to get a refund for an order",
        "You can get a refund for your order within 30 days of delivery. Open My orders, choose the order and press Refund my order. Tell us which items you send back and why. As soon as our warehouse has checked the parcel we refund the full price to the card or account you paid with, usually within five working days. You get a mail when the refund of the order leaves us.",
    ),
    (
        "When will my refund arrive?",
        "A refund starts on the day our warehouse has checked your return. Card payments take three to five working days, bank transfers two, and gift cards are topped up at once. If ten working days have passed and the refund is still missing, write to us with the order number and a picture of the return receipt.",
    ),
    (
        "Partial refunds and damaged items",
        "If only one item of an order arrived damaged, you need not return everything. Send us a photo of the damage within seven days. You choose between a replacement and a partial refund. For small flaws that do not bother you we offer a discount instead, so that nothing has to travel back.",
    ),
    (
        "Return an item step by step",
        "Log in, open My orders and pick Return items. Print the label, or show the code on your telephone at the drop-off point. Pack the item in its own box where you can. Keep the receipt of the drop-off until the return is closed. Returns are free for club members and cost 4.90 for everybody else.",
    ),
    (
        "What cannot be returned",
        "For reasons of hygiene we cannot take back opened bedding toppers, used cookware and cut fabric. Made-to-measure curtains and engraved items are yours as well. Everything else may come back within 30 days if it is complete and clean. Faulty goods are never excluded: they fall under the warranty.",
    ),
    (
        "Exchange a size or colour",
        "We do not swap items directly. Return the first one and place a new order for the size or colour you want. This way the new item is reserved for you today and does not wait for the parcel. If the price has fallen in between we refund the difference on request.",
    ),
    (
        "Track your parcel",
        "To track your parcel, open the tracking link in the confirmation of dispatch. It shows where your parcel is and when the courier expects to ring. The link wakes up a few hours after dispatch, so an empty page on the first evening is normal. For a delivery in several parcels you receive one tracking number for each.",
    ),
    (
        "My parcel says delivered but is not here",
        "Look in the letter box, behind the door and with the neighbours: couriers often leave a card. Wait until the next working day, since some scans are made too early. If the parcel is still missing, report it under My orders. We open an inquiry with the carrier and send a replacement after three working days at most.",
    ),
    (
        "Change the delivery address",
        "As long as an order is marked as placed you can change its delivery address yourself under My orders. Once it is packed the address is printed and fixed. You may then redirect the parcel through the tracking link of the carrier, for instance to a pick-up station near your work.",
    ),
    (
        "Choose a delivery day for furniture",
        "Large pieces come with a forwarding agent who calls you two days ahead to agree on a window of four hours. Two people carry the goods to the room of your choice. Please measure staircase, lift and doors first. Old furniture can be taken away for 39.00 if you book it with the order.",
    ),
    (
        "Cancel an order",
        "You can cancel an order free of charge until it is packed, usually within two hours. Open the order and press Cancel. Payments that were only reserved are released at once. If the button has gone, let the parcel come and send it back unopened, or refuse it at the door.",
    ),
    (
        "Add or remove an item after ordering",
        "An order cannot be edited after payment, because its items are reserved in different warehouses. Cancel it within two hours and order again, or place a second order. Two orders to one address on the same day often travel in one box, and then we refund the second postage.",
    ),
    (
        "Payment methods we accept",
        "We accept credit and debit cards, bank transfer, payment on invoice, gift cards and mobile wallets. Which of them appear at the checkout depends on the country and on the value of the basket. Cards are charged when the parcel leaves us, not before. We never store the full number of your card.",
    ),
    (
        "Pay on invoice",
        "With payment on invoice you receive the goods first and pay within 30 days. The invoice comes by mail as a PDF with a payment slip. A short credit check is made at the checkout. If you send back part of the order, wait for the corrected invoice and pay only the rest.",
    ),
    (
        "My card was declined",
        "Most often the bank wants a confirmation that was not given in time. Try again with the banking app open. Check the expiry date and the limit for online payments. After three failed attempts the card is blocked with us for an hour. No money was taken, even if a reservation is shown for a few days.",
    ),
    (
        "Download an invoice",
        "Open My orders, choose an order and press Invoice. The PDF shows value added tax and your customer number. For a different name or a purchase order number, enter it at the checkout under Billing address. Later changes are possible within the same quarter: write to accounting with the order number.",
    ),
    (
        "Value added tax for business customers",
        "Business accounts with a valid VAT number in another country of the European Union are billed without tax. Enter the number in your profile; the check takes a few seconds. Orders from Switzerland are always billed with Swiss tax. The exemption does not apply to purchases in a store.",
    ),
    (
        "Buy and send a gift card",
        "Gift cards are worth between 20 and 500 and can be sent by mail at a date you choose, or printed at home. They are valid for five years in the online shop and in every store. Several cards can be combined in one order, and what is left stays on the card.",
    ),
    (
        "My gift card does not work",
        "Type the sixteen characters without spaces and mind the difference between the letter O and zero, which we never use. A card is activated at the till, so keep the receipt. If the balance is zero although you never used it, send us a picture of the card and the receipt.",
    ),
    (
        "Use a discount code",
        "Enter the code in the basket before you pay. Only one code counts per order, and it cannot be added later. Codes do not apply to gift cards, delivery and items that are already reduced. A message tells you which condition is missing, for example the minimum value of the basket.",
    ),
    (
        "Price guarantee",
        "If an item gets cheaper with us within 14 days of your purchase, you get the difference back. Write to us with the order number. The guarantee covers the same colour and size that is still in stock. Clearance sales, marketplace partners and other shops are not included.",
    ),
    (
        "Reset your password",
        "If you forgot your password, press Forgot password on the login page and enter your mail address. The link we send works for one hour and once only. Look into the junk folder if nothing arrives. After five wrong passwords the account is locked for fifteen minutes to keep strangers out.",
    ),
    (
        "Change your mail address or telephone number",
        "Open My profile and edit the contact details. We send a confirmation to the old and the new mail address. Until you confirm, invoices and tracking links still go to the old one. The telephone number is used by carriers only and never for advertising.",
    ),
    (
        "Turn on two-step login",
        "Two-step login protects your account with a code from an app. Switch it on under My profile, Security. Scan the picture, type the six digits and store the recovery codes in a safe place. Without codes and telephone we must check your identity by letter, which takes a week.",
    ),
    (
        "Delete my account and my data",
        "You may ask us to delete your account and your personal data at any time under My profile, Privacy. Open orders have to be finished first. Invoices are kept for ten years because the law asks for it, but they are locked and used for nothing else. You get a confirmation within 30 days.",
    ),
    (
        "Download the data we hold about you",
        "Under My profile, Privacy you can request a copy of your personal data. Within a few days you receive a link to an archive with your orders, addresses, messages and settings in a form that machines can read. The link is protected by your password and expires after a week.",
    ),
    (
        "Unsubscribe from the newsletter",
        "Every newsletter has an unsubscribe link at its end. One click is enough, no login is needed. Changes take up to a day, so one more issue may reach you. Mails about orders, returns and security are not advertising and are always sent.",
    ),
    (
        "How the customer club works",
        "For every franc or euro you collect one point. A hundred points become a voucher of five, which comes by mail at the start of a month. Members return parcels free of charge and see sales one day earlier. Points expire after two years without a purchase.",
    ),
    (
        "Missing club points",
        "Points are credited 30 days after delivery, when the time for returns is over. For a purchase in a store, show the club card in the app at the till. Forgotten it? Scan the code on the receipt within 60 days. Points for returned items are taken back.",
    ),
    (
        "Check stock in a store near you",
        "Each product page has a button Stock in store. Choose a store to see how many pieces are there and in which aisle. The number is updated every quarter of an hour. If only one or two are left, please reserve it: it may already lie in a basket.",
    ),
    (
        "Click and collect",
        "Order online and collect in a store two hours later, free of charge. You get a message with a code when the order is ready. We keep it for five days. Bring the code; somebody else may collect for you. Unwanted items can be handed back on the spot.",
    ),
    (
        "Opening hours on holidays",
        "Stores follow the holidays of their canton or state. The page of each store shows the hours of the next four weeks. The online shop takes orders around the clock, but nothing is dispatched on Sundays and public holidays, so parcels ordered on Friday night travel on Monday.",
    ),
    (
        "Warranty and how to claim it",
        "Everything we sell has a warranty of two years, electrical kitchen appliances three. Keep the invoice; it is also stored in your account. Describe the fault under My orders, Report a problem, with a picture or a short film. We repair, replace or refund, in this order.",
    ),
    (
        "A part is missing from my furniture kit",
        "First compare the bags of screws with the list on page two of the manual: small bags often hide in the polystyrene. Tell us the number of the missing part and the order, and we post it free of charge within two working days. You need not send the furniture back.",
    ),
    (
        "Assembly service",
        "Our fitters assemble wardrobes, beds and kitchens from 79.00. Book the service together with the delivery. They bring tools, level the furniture, fix it to the wall and take the packaging away. Electric and water connections must be made by a licensed company.",
    ),
    (
        "Recycling of packaging and old appliances",
        "Cardboard and paper go into the paper collection, film into the plastic bag. We take back old electrical appliances free of charge in every store, even if you bought them elsewhere. Batteries and light bulbs belong in the red boxes at the entrance.",
    ),
    (
        "Contact the support team",
        "The chat is open from Monday to Saturday, eight to eight. By mail we answer within one working day. Have your order number at hand. Calls are answered in German, French, Italian and English. For urgent trouble with a delivery on the same day, please call.",
    ),
    (
        "Recognise false messages in our name",
        "We never ask for a password or a card number by mail, text or telephone. Look at the sender and do not open attached files. Forward suspicious messages to our security team and delete them. If you typed your password on a strange page, change it at once and tell your bank.",
    ),
];

/// (country, days, postage, free from, carrier's drop-off point) for the articles every country has.
const COUNTRIES: [(&str, &str, &str, &str, &str); 5] = [
    (
        "Switzerland",
        "one to two working days",
        "6.90 francs",
        "75 francs",
        "any post office or parcel machine",
    ),
    ("Germany", "two to three working days", "4.90 euros", "60 euros", "a parcel shop or locker near you"),
    ("Austria", "two to four working days", "5.90 euros", "60 euros", "a post partner or pick-up box"),
    ("France", "three to five working days", "7.90 euros", "80 euros", "a relay point in a local shop"),
    ("Italy", "three to six working days", "8.90 euros", "80 euros", "a tobacconist with the parcel sign"),
];

/// (product, how to care for it, its weak point).
const CARE: [(&str, &str, &str); 12] = [
    (
        "cast-iron pan",
        "Wash it with hot water and a brush, dry it on the stove and rub in a drop of oil",
        "Rust spots come off with coarse salt",
    ),
    (
        "espresso machine",
        "Descale it every two months with citric acid and empty the drip tray daily",
        "A weak flow nearly always means lime",
    ),
    (
        "electric kettle",
        "Boil water with two spoons of vinegar once a month and rinse twice",
        "Never put the base under running water",
    ),
    (
        "wool blanket",
        "Air it outside on a damp day and wash it cold in the wool cycle without softener",
        "Moths stay away from cedar wood",
    ),
    (
        "linen bedding",
        "Wash it at 40 degrees, shake it and hang it up while it is still wet",
        "Linen shrinks in a hot tumble dryer",
    ),
    (
        "oak table",
        "Wipe it with a moist cloth and oil it twice a year along the grain",
        "Water rings disappear with fine sandpaper and oil",
    ),
    (
        "non-stick pan",
        "Use wooden tools, medium heat and a soft sponge",
        "Overheating an empty pan ruins the coating",
    ),
    (
        "chef's knife",
        "Rinse it by hand, dry it at once and hone it on a steel every week",
        "The dishwasher makes every blade blunt",
    ),
    (
        "robot vacuum cleaner",
        "Empty the box after each run and cut hair from the brush once a week",
        "Dusty sensors make it circle on the spot",
    ),
    (
        "down pillow",
        "Wash it at 60 degrees with three tennis balls and dry it for hours",
        "Clumps are a sign that it is not yet dry",
    ),
    (
        "outdoor chair",
        "Clean it with soap and water and store it dry in winter",
        "Loose screws should be tightened each spring",
    ),
    (
        "table lamp",
        "Dust it with a dry brush and use only bulbs up to eight watts",
        "A flickering light is often a loose bulb",
    ),
];

/// Returns the articles as JSON lines, with one draft that has no body yet and one line cut off by the export.
pub fn lines(seed: u64) -> Vec<String> {
    let mut lines: Vec<String> = texts()
        .into_iter()
        .enumerate()
        .map(|(index, (title, body))| {
            let mut random = Random::stream(seed ^ 0x000A_471C, index as u64);
            let day = shop::day(random.range(0, DAYS - 1)) - Duration::days(random.range(0, 200));
            let at = day.and_time(shop::time_of_day(&mut random)).and_utc();
            article(index + 1, &title, Some(&body), &stamp(at))
        })
        .collect();
    let yesterday = shop::last_day().and_hms_opt(9, 12, 0).unwrap_or_default().and_utc();
    lines.push(article(lines.len() + 1, "Draft: delivery by cargo bike", None, &stamp(yesterday)));
    lines.insert(30, "{\"article_id\":\"A900\",\"title\":\"Gift wrap".to_owned());
    lines
}

fn article(number: usize, title: &str, body: Option<&str>, updated_at: &str) -> String {
    json!({
        "article_id": format!("A{number:03}"), "title": title, "body": body, "language": "en", "updated_at": updated_at,
    })
    .to_string()
}

fn texts() -> Vec<(String, String)> {
    let written = WRITTEN.iter().map(|(title, body)| ((*title).to_owned(), (*body).to_owned()));
    let delivery = COUNTRIES.iter().map(|(country, days, postage, free, _)| {
        let body = format!(
            "Parcels to {country} take {days} from dispatch. Postage is {postage} and free of charge from {free}. Orders placed before two in \
             the afternoon leave our warehouse on the same day. Bulky goods come with a forwarding agent and take up to ten working days. \
             At the checkout you see the expected day before you pay."
        );
        (format!("Delivery times and postage for {country}"), body)
    });
    let drop_off = COUNTRIES.iter().map(|(country, _, _, _, point)| {
        let body = format!(
            "From {country} you can hand in a return at {point}. Fix the label over the old address, or show the code from your account and \
             have it printed there. Ask for a receipt. The parcel needs about a week to our warehouse, and you see its progress in My orders."
        );
        (format!("Where to hand in a return in {country}"), body)
    });
    let care = CARE.iter().map(|(product, care, weak)| {
        let body = format!(
            "A {product} lasts for many years with a little care. {care}. {weak}. If it fails within the warranty, report the problem in your \
             account and do not try to open or mend it yourself: spare parts are posted free of charge."
        );
        (format!("Care for your {product}"), body)
    });
    written.chain(delivery).chain(drop_off).chain(care).collect()
}
